"""Initial charge equilibration of a new model: hardness, shift and scale of χ, first charges."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..console import say
from ..data.dataset import GraphDataset, LabelledGraph
from ..data.structure import Structure
from ..equilibration import effective_chi, group_means, group_sizes, solve_batch
from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..model.potential import NequIPLRPotential
from .config import EquilibrationConfig, TrainingConfig
from .sampling import epoch_order
from .statistics import spread_over_compositions

#: Smallest spread of the charges of an element in the fit of the electronegativities, e.
_LEAST_SPREAD = 0.01
#: Number of structures in the fit of the electronegativities, and in epochs of charges only.
_MOST_FITTED, _MOST_LEARNED = 200, 1000
#: Smallest spread if charges of elements replace unknown reference charges, e.
_STAND_IN_SPREAD = 0.1


def set_start(
    model: NequIPLRPotential, settings: EquilibrationConfig, train_data: GraphDataset
) -> None:
    """Set hardnesses, charge offsets, and shift and scale of the electronegativities, in place.

    Raises
    ------
    InputError
        If an element is unknown, a hardness is not above ``model.hardness_min``, offsets are
        given without effective charges, or there are no charges for the fit.
    """
    config = model.config
    with torch.no_grad():
        for index, value in _by_type(model, "hardness", settings.hardness):
            if value <= config.hardness_min:
                expected = f"more than model.hardness_min = {config.hardness_min:g}"
                raise InputError(describe("equilibration.hardness", value, expected))
            model.hardness_parameter[index] = math.sqrt(value - config.hardness_min)
        if settings.charge_offset and model.charge_offset is None:
            expected = "nothing without model.effective_charges"
            raise InputError(
                describe("equilibration.charge_offset", dict(settings.charge_offset), expected)
            )
        for index, value in _by_type(model, "charge_offset", settings.charge_offset):
            assert model.charge_offset is not None
            model.charge_offset[index] = value
        if settings.fit_electronegativity:
            _fit_electronegativity(model, settings.charges, train_data)


def _by_type(
    model: NequIPLRPotential, name: str, given: Mapping[str, float] | None
) -> list[tuple[int, float]]:
    known = model.config.type_names
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        expected = "elements among " + ", ".join(known)
        raise InputError(describe(f"equilibration.{name}", unknown, expected))
    return [(known.index(symbol), float(value)) for symbol, value in (given or {}).items()]


def _stand_in_charges(
    model: NequIPLRPotential, charges: Mapping[str, float] | None, graph: AtomicGraph
) -> torch.Tensor | None:
    """Charges by element, shifted uniformly to the constrained charges, shape (N,), e."""
    given = _by_type(model, "charges", charges)
    if not given:
        return None
    of_type = torch.zeros(len(model.config.type_names), dtype=torch.float64)
    for index, value in given:
        of_type[index] = value
    own, holders = of_type.to(graph.types.device)[graph.types], graph.holders
    sizes = group_sizes(holders)
    return own + (graph.held_charges / sizes)[holders] - group_means(own, holders, sizes)


def _weighted(structure: Structure) -> bool:
    return structure.weight > 0


def _has_charges(structure: Structure) -> bool:
    return structure.charges is not None and structure.weight > 0


def _fit_electronegativity(
    model: NequIPLRPotential, stand_in: Mapping[str, float] | None, data: GraphDataset
) -> None:
    """Set shift and scale of χ = −(J q + K (q + Z) + φ) at the reference charges q, by element."""
    targets: list[list[torch.Tensor]] = [[] for _ in model.config.type_names]
    charge_spread = _LEAST_SPREAD
    known = _weighted if stand_in else _has_charges
    for place in spread_over_compositions(data.structures, _MOST_FITTED, known):
        graph, charges = data[place].graph, data[place].labels.charges
        if charges is None or not bool(torch.isfinite(charges).all()):
            charges, charge_spread = _stand_in_charges(model, stand_in, graph), _STAND_IN_SPREAD
        if charges is None:
            continue
        kernel = model.coulomb_matrices(graph, graph.positions, graph.cell)[0]
        chi = -(kernel @ (charges + model.offsets(graph)) + model.hardness(graph.types) * charges)
        outside = graph.outside(graph.positions)
        if outside is not None:
            # remove the dependence on the origin
            chi = chi - (outside - group_means(outside, graph.holders, group_sizes(graph.holders)))
        for index, own in enumerate(targets):
            own.append(chi[graph.types == index])
    if not any(targets):
        expected = "reference charges in the training set, or equilibration.charges"
        raise InputError(describe("equilibration.fit_electronegativity", True, expected))
    for index, own in enumerate(targets):
        values = torch.cat(own)
        if len(values) > 1:
            model.electronegativity_shifts[index] = values.mean()
            least = charge_spread * float(model.hardness(torch.tensor(index)))
            model.electronegativity_scales[index] = max(float(values.std()), least)


def learn_charges_first(
    model: NequIPLRPotential, config: TrainingConfig, train_data: GraphDataset, progress: bool
) -> None:
    """Train the electronegativity stage on reference charges, in place; hardnesses are fixed.

    Dipoles are included with the ratio of their weight in the loss to that of the charges.
    """
    settings, weights = config.equilibration, config.loss
    ratio = weights.dipole / weights.charges if weights.charges > 0 else 0.0
    assert model.electronegativity_stage is not None
    parameters = [p for p in model.electronegativity_stage.parameters() if p.requires_grad]
    if not parameters:
        expected = "0 with freeze of electronegativity_stage"
        raise InputError(describe("equilibration.charge_epochs", settings.charge_epochs, expected))
    optimizer = torch.optim.Adam(parameters, lr=settings.charge_lr)
    places = spread_over_compositions(train_data.structures, _MOST_LEARNED, _has_charges)
    fixed = [_Fixed(model, train_data[place]) for place in places]
    if not fixed:
        expected = "reference charges in the training set"
        raise InputError(describe("equilibration.charge_epochs", settings.charge_epochs, expected))
    for epoch in range(settings.charge_epochs):
        course = 0.5 * (1.0 + math.cos(math.pi * epoch / settings.charge_epochs))
        for group in optimizer.param_groups:
            group["lr"] = settings.charge_lr * (0.01 + 0.99 * course)
        squares, count = 0.0, 0
        for index in epoch_order(len(fixed), config.seed, epoch):
            loss, error = fixed[index].loss(model, ratio)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            squares, count = squares + float(error.square().sum()), count + error.numel()
        if progress and (epoch + 1) % max(1, settings.charge_epochs // 10) == 0:
            rms = 1e3 * math.sqrt(squares / count)
            say(f"charges first, epoch {epoch + 1}: {rms:.2f} me")


class _Fixed:
    """Quantities of one structure that are constant while only χ is trained."""

    def __init__(self, model: NequIPLRPotential, item: LabelledGraph) -> None:
        self.item = item
        graph = item.graph
        with torch.no_grad():
            self.edges = graph.edge_index, *model.edge_features(graph.edge_vectors())
            kernel = model.coulomb_matrices(graph, graph.positions, graph.cell)[0]
            self.offset_potential = kernel @ model.offsets(graph)
            self.outside = graph.outside(graph.positions)
            self.matrix = kernel + torch.diag(model.separate_hardness(graph))

    def loss(
        self, model: NequIPLRPotential, dipole_weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and errors of the charges, e.

        ``dipole_weight`` is the weight of dipoles (e Å) relative to charges (e).
        """
        graph, labels = self.item.graph, self.item.labels
        chi = model.first_stage(graph.types, *self.edges)[0]
        chi = effective_chi(chi, self.offset_potential, self.outside)
        held, groups = graph.held_charges, graph.charge_groups
        charges = solve_batch([self.matrix], chi, held, graph.counts, groups).charges
        assert labels.charges is not None
        error = (charges - labels.charges)[torch.isfinite(labels.charges)]
        loss = error.square().mean()
        if dipole_weight > 0 and labels.dipole is not None:
            missed = charges @ graph.positions - labels.dipole[0]
            missed = missed[torch.isfinite(missed)]
            if missed.numel():
                loss = loss + dipole_weight * missed.square().mean()
        return 100.0 * loss, error.detach()
