"""Evaluation of one structure: the NumPy interface of :mod:`.inference`.

The Coulomb energy enters only as e(Q+Z−w) − e(w)
(:mod:`openmm_nequiplr.equilibration.adjoint`; Z are the offsets of a model with effective charges).
Any point-charge code that returns an energy and forces can therefore compute it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..boundaries import SLAB
from ..devices import resolve_device
from ..electrostatics import CoulombOperator
from ..electrostatics.external import OutsideCharges
from ..electrostatics.slab import bounded
from ..equilibration import JacobiPreconditioner
from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..ops import compiled
from .building import with_lattice_sum
from .geometry_checks import check_graph, check_surrounded, graph_key
from .inference import Atoms, Geometry, Inference, Results
from .memory import ChargeMemory
from .numpy_evaluation import (
    Collected,
    check_finite,
    collected,
    evaluation_of,
    evaluation_of_output,
    to_numpy,
)
from .observables import Observable, Observation
from .output import Evaluation
from .point_charges import ExternalPointCharges, PointChargeCoulomb, SmoothCoulomb
from .potential import NequIPLRPotential
from .replay import Replays
from .response import Charged, Response, charge_response, observations
from .solving import DenseEquilibration, IterativeEquilibration, SolverOptions
from .strain import strained

__all__ = ["Evaluation", "Evaluator", "PointChargeCoulomb", "SmoothCoulomb"]


@dataclass(frozen=True)
class Surroundings:
    """M fixed external charges around a structure, such as the charges of a force field.

    Parameters
    ----------
    charges : OutsideCharges
    positions : torch.Tensor, float64, shape (M, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å, optional
        Cell in which they are repeated; not needed if the structure has a cell.
    """

    charges: OutsideCharges
    positions: torch.Tensor
    cell: torch.Tensor | None = None


class Evaluator:
    """Evaluator of one structure at a time, without differentiation through the equilibration.

    Parameters
    ----------
    model : NequIPLRPotential
        Changed in place: set to evaluation mode, its parameters frozen, and moved and cast if
        ``device`` or ``dtype`` is given. Pass a copy of a model that is still being trained.
    dtype : torch.dtype, optional
        Precision of the network.
    device : torch.device or str, optional
    options : SolverOptions, optional
        Options of the charge solver. An iterative solver starts from the charges of previous
        structures, so use one evaluator for each run. Its results depend on them within the
        tolerance. An evaluation that fails clears this memory.
    **fields
        Fields of :class:`.solving.SolverOptions`, in place of ``options``.
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        options: SolverOptions | None = None,
        **fields: Any,
    ) -> None:
        where = None if device is None else resolve_device(device)
        self.model = model.to(dtype=dtype, device=where).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.options = options or SolverOptions(**fields)
        self._key = graph_key(self.model.config)
        self.memory = ChargeMemory(self.model, self.options.mesh_accuracy)
        #: Recorded evaluations; only on a GPU.
        self.replays = Replays(self.memory, self.options)

    def iterative(self, count: int, periodic: bool) -> bool:
        """Whether the solver is iterative for this number of atoms; it needs no lattice sum."""
        if not self.model.config.equilibration:
            return False
        return self.options.iterative(self.model.config, count, periodic, self.model.device)

    def _prepare(self, graph: AtomicGraph) -> tuple[AtomicGraph, ChargeMemory | None]:
        """Graph with the data that its solver needs, and the memory of an iterative solver."""
        self._check_graph(graph)
        if graph.replicas == 1 and self.iterative(graph.num_atoms, graph.periodic[0]):
            return graph, self.memory
        return with_lattice_sum(self.model.config, graph), None

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Context that clears the memory of the solver if an evaluation fails."""
        try:
            yield
        except BaseException:
            self.memory.reset()
            self.replays.reset()
            raise

    def charges(
        self, graph: AtomicGraph, surroundings: Surroundings | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Charges, shape (N,), e, and electronegativities, shape (N,), eV/e, without the energy."""
        self._check_graph(graph)
        self._check_surrounded(graph, surroundings)
        if not self.model.config.equilibration:
            return np.zeros(graph.num_atoms), np.zeros(graph.num_atoms)
        with self._forgetting(), torch.no_grad():
            found = self._charged(graph, surroundings=surroundings)
        return to_numpy(found.first.charges), to_numpy(found.chi)

    def response(self, graph: AtomicGraph) -> Response:
        """Born effective charges and, for isolated structures, the polarisability.

        Raises
        ------
        InputError
            If the graph contains several structures, or the model has no charges or those of the
            published periodic code.
        ConvergenceError
            If a charge solver does not converge.
        """
        self._check_response(graph)
        with self._forgetting(), torch.enable_grad():
            return charge_response(self._charged(graph), graph)

    def observe(
        self,
        graph: AtomicGraph,
        observables: Sequence[Observable],
        surroundings: Surroundings | None = None,
    ) -> tuple[Observation, ...]:
        """Observables of the charges and their gradients, without the energy.

        This requires the electronegativities, one solution for the charges and, for each
        observable, one more solution and one backward pass. With ``observables`` of an evaluation,
        only the cost per observable is added.

        Parameters
        ----------
        graph : AtomicGraph
            One structure.
        observables : sequence of GroupCharge or GroupDipole
        surroundings : Surroundings, optional

        Raises
        ------
        InputError, ConvergenceError
            As for :meth:`response`; also if an observable refers to atoms that do not exist.
        """
        self._check_response(graph)
        self._check_surrounded(graph, surroundings)
        with self._forgetting(), torch.enable_grad():
            return observations(self._charged(graph, surroundings=surroundings), observables)

    def _check_graph(self, graph: AtomicGraph) -> None:
        check_graph(self._key, graph)
        if graph.num_graphs != 1:
            raise InputError(describe("graph", f"{graph.num_graphs} structures", "one structure"))

    def _check_surrounded(self, graph: AtomicGraph, surroundings: Surroundings | None) -> None:
        if surroundings is not None:
            check_surrounded(self.model.config, graph.periodic[0], graph.pbc[0] == SLAB)

    def _check_response(self, graph: AtomicGraph) -> None:
        if not self.model.config.has_coulomb_sum(graph.periodic[0]):
            raise InputError(describe("model", "one without response", "one with equilibration"))

    def _charged(
        self,
        graph: AtomicGraph,
        strain: torch.Tensor | None = None,
        delegated: PointChargeCoulomb | None = None,
        surroundings: Surroundings | None = None,
        deferred: bool = False,
    ) -> Charged:
        """Charge equilibration of the structure, with its check ``deferred`` to the caller."""
        sites: torch.Tensor | None = None
        if surroundings is not None:
            sites = surroundings.positions.detach().clone()
            sites.requires_grad_(torch.is_grad_enabled())
            surroundings = replace(surroundings, positions=sites)
        graph, memory = self._prepare(graph)
        positions = graph.positions.detach().requires_grad_(torch.is_grad_enabled())
        moved, cell = positions, graph.cell
        if strain is not None:
            moved, cell = strained(positions, graph.cell, strain, graph.batch)
        inference, geometry = self._inference(graph, moved, cell, memory, surroundings)
        if delegated is not None:
            _delegate(inference, graph, delegated)
        if deferred:
            inference.solver.deferred = True
        atoms = self._atoms(graph)
        chi, features = inference.electronegativities(atoms, geometry)
        first = inference.equilibrate(atoms, geometry, chi)
        pbc = graph.pbc[0]
        return Charged(inference, atoms, geometry, chi, features, first, positions, pbc, sites)

    def __call__(
        self,
        graph: AtomicGraph,
        compute_forces: bool = True,
        compute_stress: bool = False,
        point_charge_coulomb: PointChargeCoulomb | None = None,
        observables: Sequence[Observable] = (),
        coulomb_scale: float = 1.0,
        surroundings: Surroundings | None = None,
    ) -> Evaluation:
        """Evaluate one structure.

        Parameters
        ----------
        graph : AtomicGraph
            One structure, or several replicas of a system, whose energies are summed.
        compute_forces, compute_stress : bool
        point_charge_coulomb : callable, optional
            Computes the point-charge sums in place of this package (see
            :data:`PointChargeCoulomb`). The stress is not available with it.
        observables : sequence of GroupCharge or GroupDipole
            Observables of the charges, returned with the evaluation; see :meth:`observe`.
        coulomb_scale : float
            Factor on the electrostatic energy. The charges always minimise the unscaled
            functional, so the energy is a linear function of this factor.
        surroundings : Surroundings, optional
            External charges, which interact with the charges of the model. The stress is not
            available with them.

        Raises
        ------
        InputError
            If the graph contains several structures, the combination of arguments is not
            supported, or the results are not finite.
        ConvergenceError
            If the equilibration fails.
        """
        with self._forgetting():
            evaluation = self._evaluate(
                graph,
                compute_forces,
                compute_stress,
                point_charge_coulomb,
                tuple(observables),
                coulomb_scale,
                surroundings,
            )
            check_finite(evaluation)
        return evaluation

    def again(self, positions: np.ndarray, coulomb_scale: float = 1.0) -> Evaluation | None:
        """Evaluate the last structure at other positions, shape (N, 3), Å, if it was recorded.

        Returns
        -------
        Evaluation or None
            None if the structure has to be evaluated from its graph: always on a CPU, after a
            change of anything but the positions, and when atoms have moved too far.

        Raises
        ------
        InputError
            If the results are not finite.
        """
        with self._forgetting():
            evaluation = self.replays.again(positions, coulomb_scale)
            if evaluation is not None:
                check_finite(evaluation)
        return evaluation

    def _evaluate(
        self,
        graph: AtomicGraph,
        compute_forces: bool,
        compute_stress: bool,
        point_charge_coulomb: PointChargeCoulomb | None,
        observables: Sequence[Observable],
        scale: float,
        surroundings: Surroundings | None,
    ) -> Evaluation:
        self._check_graph(graph)
        if len(observables) or scale != 1.0:
            self._check_response(graph)
        config = self.model.config
        self._check_surrounded(graph, surroundings)
        if surroundings is not None and compute_stress:
            raise InputError(describe("compute_stress", True, "False with charges outside"))
        if not config.has_coulomb_sum(graph.periodic[0]):
            return self._differentiated(graph, compute_forces, compute_stress, point_charge_coulomb)
        if compute_stress and point_charge_coulomb is not None:
            raise InputError(
                describe("compute_stress", True, "False when point_charge_coulomb is given")
            )
        special = compute_stress or point_charge_coulomb or surroundings or observables
        repeats, found = not special and compute_forces and self._repeats(graph), None
        if repeats:
            found = self.replays(graph, scale, lambda copy, more: self._recorded(copy, more, scale))
            if found is not None and self.replays.trusted:
                return found
        strain = torch.zeros_like(graph.cell).requires_grad_() if compute_stress else None
        with torch.enable_grad():
            charged = self._charged(graph, strain, point_charge_coulomb, surroundings)
            observed = observations(charged, observables)
            roots = [charged.positions] if compute_forces or compute_stress else []
            if strain is not None:
                roots.append(strain)
            elif compute_forces and charged.sites is not None:
                roots.append(charged.sites)
            results = _completed(charged, roots, scale)
        evaluation = evaluation_of(
            self.model, graph, charged, results, compute_forces, compute_stress, observed
        )
        if repeats and found is not None:
            self.replays.compare(found, evaluation)
        elif repeats:
            self.replays.learn(evaluation)
        return evaluation

    def _repeats(self, graph: AtomicGraph) -> bool:
        """Whether evaluations of a structure can be recorded, unlike the references of kernels."""
        cuda = graph.positions.is_cuda and compiled(graph.positions) and graph.replicas == 1
        return cuda and self.iterative(graph.num_atoms, graph.periodic[0])

    def _recorded(
        self, graph: AtomicGraph, more: torch.Tensor, scale: float
    ) -> tuple[Collected, Results]:
        """Energy and forces of a structure, without waiting for the device; see :mod:`.replay`."""
        with torch.enable_grad():
            charged = self._charged(graph, deferred=True)
            results = _completed(charged, [charged.positions], scale)
        behind = (more, *results.records)
        return collected(self.model, graph, charged, results, more=behind), results

    def _inference(
        self,
        graph: AtomicGraph,
        positions: torch.Tensor,
        cell: torch.Tensor,
        memory: ChargeMemory | None,
        surroundings: Surroundings | None = None,
    ) -> tuple[Inference, Geometry]:
        """Inference module and geometry of one structure; not cached, as tensors have gradients."""
        model = self.model
        length, harmonics = model.edge_features(graph.edge_vectors(positions, cell))
        if memory is not None and graph.periodic[0]:
            mesh, constant = memory.mesh(graph, positions, cell[0]), model.config.coulomb_constant
            operator = bounded(graph.pbc[0], mesh, positions, cell[0], constant)
        else:
            operator = model.coulomb_operator(graph, 0, positions, cell)
        outside = graph.outside(positions)
        if surroundings is not None:
            box = cell[0] if graph.periodic[0] else surroundings.cell
            widths, sites = model.widths[graph.types], surroundings.positions
            seen = surroundings.charges(positions, widths, sites, box)
            outside = seen if outside is None else outside + seen
        geometry = Geometry(positions, cell[0], graph.edge_index, length, harmonics, outside)
        return Inference(model, self._solver(graph, operator, memory)), geometry

    def _solver(
        self, graph: AtomicGraph, operator: CoulombOperator, memory: ChargeMemory | None
    ) -> DenseEquilibration | IterativeEquilibration:
        """Charge solver: iterative with a memory, else dense."""
        if memory is None:
            return DenseEquilibration(operator)
        preconditioner: torch.nn.Module = memory.preconditioner
        if not graph.periodic[0]:
            preconditioner = JacobiPreconditioner()
        history = memory.guesses(graph)
        tolerance = self.options.tolerance(graph.num_atoms, graph.periodic[0])
        options = replace(self.options, charge_tolerance=tolerance)
        return IterativeEquilibration(operator, preconditioner, history, options)

    def _atoms(self, graph: AtomicGraph) -> Atoms:
        model = self.model
        offsets = None if model.charge_offset is None else model.offsets(graph)
        hardness, groups = model.separate_hardness(graph), graph.charge_groups
        held = graph.on_cpu.total_charge[0] if groups is None else graph.held_charges
        return Atoms(graph.types, hardness, offsets, held, groups)

    def _differentiated(
        self,
        graph: AtomicGraph,
        compute_forces: bool,
        compute_stress: bool,
        point_charge_coulomb: PointChargeCoulomb | None,
    ) -> Evaluation:
        """Evaluation by automatic differentiation of the whole model.

        It is used where the adjoint method does not apply: for models without equilibration, and
        for the published periodic code, whose matrix A is not symmetric.
        """
        if point_charge_coulomb is not None:
            expected = "None: this model has no Coulomb sum to hand over"
            raise InputError(describe("point_charge_coulomb", "a callable", expected))
        graph, _ = self._prepare(graph)
        graph = graph if graph.replicas == 1 else graph.apart()
        return evaluation_of_output(self.model(graph, compute_forces, compute_stress))


def _completed(charged: Charged, roots: list[torch.Tensor], scale: float) -> Results:
    """Energy and its gradients by the roots, after the charges are known."""
    inference = charged.inference
    inference.scale = scale
    return inference.complete(
        charged.atoms, charged.geometry, roots, charged.chi, charged.features, charged.first
    )


def _delegate(inference: Inference, graph: AtomicGraph, point_charges: PointChargeCoulomb) -> None:
    """Delegate the point-charge sum, except for pairs that the external code can omit."""
    smoothed = inference.solver.operator.smoothing_width > 0.0
    split = smoothed and isinstance(point_charges, SmoothCoulomb)
    external = ExternalPointCharges(point_charges, bool(graph.periodic[0]), split)
    inference.delegate(external, everything=not split)
