"""Data augmentation by harmonic copies: structures displaced further than those of the data.

Reference data near one minimum do not cover the displacements that molecular dynamics reaches in
every period of a vibration, and there a network may have spurious soft modes. Springs between
neighbours are a crude but safe model for these displacements. They are fitted to the change of the
forces with the displacements in the data. A copy is a structure displaced at random by δ, with the
forces F(R) − Φ δ, where Φ is the Hessian of the springs. Copies are used only in training, with a
small weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.quantities import LABELS
from ..data.structure import Structure
from ..errors import InputError, describe
from ..neighbors import pairs_within

_SHELL = 0.5  # Å, width of neighbour shells; pairs of a shell share spring constants
_SAME = 0.3  # Å, largest rms distance of structures about the same minimum


@dataclass(frozen=True)
class HarmonicConfig:
    """Displaced copies of the training structures with the forces of fitted springs.

    Parameters
    ----------
    copies : float
        Mean number of copies of each structure; 0 for no copies. Below 1, a random subset of the
        structures is copied once.
    displacement : float, Å
        Standard deviation of each component of the displacements.
    weight : float
        Weight of a copy in the loss, relative to the weight of its structure.
    cutoff : float, Å
        Largest length of a spring.
    """

    copies: float = 0.0
    displacement: float = 0.08
    weight: float = 0.1
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        for name in ("displacement", "weight", "cutoff"):
            if not getattr(self, name) > 0:
                raise InputError(describe(f"harmonic.{name}", getattr(self, name), "above 0"))


@dataclass(frozen=True)
class HarmonicCopies:
    """Harmonic copies, and the quality of the fit of the springs.

    Parameters
    ----------
    structures : list of Structure
        Copies with forces and a weight, without other labels.
    spread, residual : float, eV/Å
        Rms change of the forces in the data, and rms residual of the fit.
    """

    structures: list[Structure]
    spread: float
    residual: float


def harmonic_copies(
    structures: Sequence[Structure], config: HarmonicConfig, seed: int
) -> HarmonicCopies:
    """Fit springs to all structures together, and create the copies.

    Each pair of elements has a longitudinal and a transverse spring constant for each neighbour
    shell. They are fitted by non-negative least squares, so Φ has no negative eigenvalue.

    Raises
    ------
    InputError
        If no two structures with forces oscillate about the same minimum.

    References
    ----------
    Lawson and Hanson, Solving Least Squares Problems, Prentice-Hall (1974), chapter 23.
    """
    from scipy.optimize import nnls

    if any(each.outside_potential is not None for each in structures):
        expected = "0 for structures among charges outside, which pull at moved atoms otherwise"
        raise InputError(describe("harmonic.copies", config.copies, expected))
    groups = [g for g in _groups(structures) if len(g) > 1]
    if not groups:
        expected = f"structures with forces within {_SAME} Å (rms) of one another"
        raise InputError(describe("harmonic.copies", "none in the training set", expected))
    oscillators = [_Oscillator(group, config.cutoff) for group in groups]
    kinds = sorted({kind for each in oscillators for kind in each.kinds})
    rows = [row for each in oscillators for row in each.equations(kinds)]
    target = np.concatenate([change for _, change in rows])
    constants, misfit = nnls(np.concatenate([matrix for matrix, _ in rows]), target)
    rng = np.random.default_rng(seed)
    copies = [copy for each in oscillators for copy in each.copies(kinds, constants, config, rng)]
    return HarmonicCopies(copies, float(np.std(target)), float(misfit / len(target) ** 0.5))


def _groups(structures: Sequence[Structure]) -> list[list[Structure]]:
    groups: list[list[Structure]] = []
    for structure in structures:
        if structure.forces is None:
            continue
        for group in groups:
            first = group[0]
            if _surroundings(first) == _surroundings(structure):
                moved = structure.positions - first.positions
                cells = (first.cell, structure.cell)
                same = cells[0] is None or np.allclose(*cells, atol=0.01)  # type: ignore[arg-type]
                if same and np.sqrt((moved**2).sum(axis=1).mean()) < _SAME:
                    group.append(structure)
                    break
        else:
            groups.append([structure])
    return groups


def _surroundings(structure: Structure) -> tuple[object, ...]:
    """Properties that structures about the same minimum have in common, except the cell."""
    field = np.zeros(3) if structure.electric_field is None else structure.electric_field
    groups = [
        () if g is None else tuple(g) for g in (structure.charge_groups, structure.group_charges)
    ]
    return structure.symbols, structure.pbc, structure.total_charge, *field.tolist(), *groups


class _Oscillator:
    """Structures about one minimum: their mean, and its pairs of neighbours."""

    def __init__(self, members: Sequence[Structure], cutoff: float) -> None:
        self.members = members
        self.mean = np.mean([m.positions for m in members], axis=0)
        self.force = np.mean([m.forces for m in members if m.forces is not None], axis=0)
        first = members[0]
        self.first, self.second, vectors = pairs_within(self.mean, first.cell, cutoff, full=True)
        length = np.linalg.norm(vectors, axis=1)
        self.direction = vectors / length[:, None]
        self.pair_kinds = [
            (*sorted((first.symbols[i], first.symbols[j])), int(d / _SHELL))
            for i, j, d in zip(self.first, self.second, length, strict=True)
        ]
        self.kinds = set(self.pair_kinds)

    def matrix(self, displacements: np.ndarray, kinds: list) -> np.ndarray:
        """−Φ δ for unit spring constants, shape (3 N, 2 kinds); δ has shape (N, 3), Å."""
        place = {kind: 2 * k for k, kind in enumerate(kinds)}
        column = np.array([place[kind] for kind in self.pair_kinds])
        relative = displacements[self.second] - displacements[self.first]
        along = (relative * self.direction).sum(axis=1)[:, None] * self.direction
        result = np.zeros((2 * len(kinds), len(displacements), 3))
        np.add.at(result, (column, self.first), along)
        np.add.at(result, (column + 1, self.first), relative - along)
        return result.reshape(2 * len(kinds), -1).T

    def equations(self, kinds: list) -> list[tuple[np.ndarray, np.ndarray]]:
        """Linear equations for the spring constants: matrix and change of forces of each member."""
        return [
            (self.matrix(m.positions - self.mean, kinds), (m.forces - self.force).ravel())
            for m in self.members
            if m.forces is not None
        ]

    def copies(
        self, kinds: list, constants: np.ndarray, config: HarmonicConfig, rng: np.random.Generator
    ) -> list[Structure]:
        result = []
        for index in copied_indices(len(self.members), config.copies, rng):
            member = self.members[index]
            moved = rng.normal(0.0, config.displacement, size=self.mean.shape)
            change = (self.matrix(moved, kinds) @ constants).reshape(moved.shape)
            assert member.forces is not None
            result.append(
                replace(
                    member.without(*LABELS),
                    positions=member.positions + moved,
                    forces=member.forces + change,
                    weight=config.weight * member.weight,
                    synthetic=True,
                )
            )
        return result


def copied_indices(count: int, copies: float, rng: np.random.Generator) -> list[int]:
    """Indices of the structures to copy, out of `count`, each `copies` times on average."""
    whole, rest = divmod(copies, 1.0)
    places, number = rng.permutation(count), round(rest * count)
    return [*int(whole) * list(range(count)), *(i for i in range(count) if places[i] < number)]
