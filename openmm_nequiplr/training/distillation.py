"""Distillation: structures moved at random, with what a committee of models says of them.

Where data are few, models that differ by their seed alone are wrong in different ways, and the mean
of their predictions is better than each. A model that also trains on that mean, at as many
structures as one likes, comes near it at the cost of one model (Matin et al., Ensemble Knowledge
Distillation for Machine Learning Interatomic Potentials, arXiv 2503.14293).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..data.dataset import GraphDataset
from ..data.structure import Structure
from ..errors import InputError, describe
from ..model import NequIPLRPotential
from .copies import copied_indices, moved_copy


@dataclass(frozen=True)
class DistillationConfig:
    """Copies of the training structures that are labelled by other models.

    Parameters
    ----------
    seeds : tuple of int
        The same configuration, without distillation, is trained first with each of these seeds, in
        ``teachers/seed_N`` of the output directory.
    models : tuple of str
        Models that there are already: files (relative to the configuration), directories of
        committees, or names of shipped models. They should not have seen the structures for
        validation and test, whose errors would not be those of unknown structures any more.
    copies : float
        How many of each structure, on the average. They also take part in
        ``equilibration.charge_epochs``.
    displacement : float or dict, Å
        Standard deviation of each component of the displacements; of each element if a dict, 0 for
        those that are not named.
    weight : float
        Weight of a copy in the loss, next to 1 of a structure.
    """

    seeds: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    copies: float = 4.0
    displacement: float | Mapping[str, float] = 0.03
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or any(seed < 0 for seed in self.seeds):
            expected = "different whole numbers of at least 0"
            raise InputError(describe("distillation.seeds", self.seeds, expected))
        numbers: dict[str, object] = {"copies": self.copies, "weight": self.weight}
        if isinstance(self.displacement, Mapping) and self.displacement:
            for element, deviation in self.displacement.items():
                numbers[f"displacement.{element}"] = deviation
        else:
            numbers["displacement"] = self.displacement
        for name, value in numbers.items():
            if not isinstance(value, (int, float)) or not value > 0:
                raise InputError(describe(f"distillation.{name}", value, "a number above 0"))

    @property
    def active(self) -> bool:
        """Whether there are teachers."""
        return bool(self.seeds or self.models)

    def deviations(self, symbols: Sequence[str]) -> np.ndarray:
        """Standard deviation of the displacement of each atom, shape [N, 1], Å."""
        given = self.displacement
        if isinstance(given, Mapping):
            return np.array([[float(given.get(symbol, 0.0))] for symbol in symbols])
        return np.full((len(symbols), 1), float(given))


def distilled_copies(
    structures: Sequence[Structure],
    teachers: Sequence[NequIPLRPotential],
    config: DistillationConfig,
    seed: int,
) -> list[Structure]:
    """Move the structures at random and label them with the mean of the teachers.

    Parameters
    ----------
    structures : sequence of Structure
    teachers : sequence of NequIPLRPotential
    config : DistillationConfig
    seed : int
        Of the displacements.

    Returns
    -------
    list of Structure
        With energies (eV), forces (eV/Å) and, where all teachers have them, charges (e) and, in
        free space, dipoles (e Å); with stresses (eV/Å³) where the structure has one.

    Raises
    ------
    InputError
        If ``config.displacement`` names an element that no structure has, or a structure has one
        that a teacher does not know.
    """
    if isinstance(config.displacement, Mapping):
        known = {symbol for structure in structures for symbol in structure.symbols}
        unknown = sorted(set(config.displacement) - known)
        if unknown:
            expected = "elements among " + ", ".join(sorted(known))
            raise InputError(describe("distillation.displacement", unknown, expected))
    rng = np.random.default_rng(seed)
    originals = [structures[i] for i in copied_indices(len(structures), config.copies, rng)]
    with_charges = all(teacher.config.equilibration for teacher in teachers)
    labelled = []
    for original in originals:
        change = rng.normal(size=original.positions.shape) * config.deviations(original.symbols)
        copy = moved_copy(original, change, config.weight)
        with_stress = copy.pbc and original.stress is not None
        answers = [_answer(each.eval(), copy, with_charges, with_stress) for each in teachers]
        mean = {name: np.mean([each[name] for each in answers], axis=0) for name in answers[0]}
        labelled.append(replace(copy, **mean))
    return labelled


def _answer(
    teacher: NequIPLRPotential, structure: Structure, with_charges: bool, with_stress: bool
) -> dict[str, np.ndarray]:
    """What one teacher says of one structure."""
    (item,) = GraphDataset([structure], teacher).items
    output = teacher(item.graph.to(teacher.device), compute_stress=with_stress)
    found = {"energy": output.energy[0], "forces": output.forces}
    if with_charges:
        found["charges"] = output.charges
        if not structure.pbc:
            found["dipole"] = output.dipole[0]
    if with_stress:
        found["stress"] = output.stress[0]
    return {name: value.detach().to("cpu", torch.float64).numpy() for name, value in found.items()}
