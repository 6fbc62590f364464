"""Energy of two isolated atoms against their distance: repulsive where atoms never are, smooth."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii

from ..errors import ConvergenceError
from ..graph import AtomicGraph
from ..model import NequIPLRPotential

#: Where scans begin, and their step, Å.
FIRST_DISTANCE = 0.3
STEP = 0.02
#: Bonds shorter than this part of the sum of two covalent radii do not exist.
SHORTEST_BOND = 0.7
#: More than this (eV) below two separate atoms is no bond: the strongest, of CO, has 11.1.
DEEPEST_WELL = 15.0
#: Energies may differ from the integral of the forces by this (eV), and this part of the change.
JUMP, RELATIVE_JUMP = 0.005, 1e-3

_BATCH = 400


@dataclass(frozen=True)
class PairScan:
    """Two isolated atoms, neutral together, at D distances.

    Parameters
    ----------
    pair : tuple of str
        The elements.
    distances : numpy.ndarray, shape (D,), Å
        From 0.3 Å to the cutoff of the model.
    energies : numpy.ndarray, shape (D,), eV
        Less that at the longest distance.
    forces : numpy.ndarray, shape (D,), eV/Å
        −dE/dr: positive where the atoms repel one another.
    wall : float, Å
        Up to here they have to.
    """

    pair: tuple[str, str]
    distances: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    wall: float

    @property
    def repulsive_to(self) -> float:
        """The atoms repel one another at all distances up to this one, Å; 0 if nowhere."""
        attractive = np.flatnonzero(~(self.forces > 0.0))
        if len(attractive) == 0:
            return float(self.distances[-1])
        return 0.0 if attractive[0] == 0 else float(self.distances[attractive[0] - 1])

    @property
    def lowest(self) -> float:
        """Lowest energy of the scan, eV."""
        return float(np.min(self.energies))

    @property
    def largest_jump(self) -> tuple[float, float]:
        """Largest excess of |ΔE + ∫F dr| over what is allowed (eV, ≤ 0 if smooth), and where (Å).

        The integral over every two steps is Simpson's.
        """
        f, e = self.forces, self.energies
        change = e[2:] - e[:-2]
        integral = np.diff(self.distances)[0] / 3.0 * (f[2:] + 4.0 * f[1:-1] + f[:-2])
        excess = np.abs(change + integral) - JUMP - RELATIVE_JUMP * np.abs(change)
        worst = int(np.argmax(excess))
        return float(excess[worst]), float(self.distances[worst + 1])

    @property
    def problem(self) -> str | None:
        """The problem in a few words; None without one."""
        name = "–".join(self.pair)
        if not (np.isfinite(self.energies).all() and np.isfinite(self.forces).all()):
            bad = ~(np.isfinite(self.energies) & np.isfinite(self.forces))
            return f"{name} has no energy at {self.distances[bad][0]:.2f} Å"
        if self.repulsive_to < self.wall - 1.5 * STEP:
            where = self.repulsive_to
            until = f"repulsive up to {where:.2f} Å" if where else "attractive at 0.3 Å"
            return f"{name} is {until} ({self.wall:.2f} Å expected)"
        if self.lowest < -DEEPEST_WELL:
            where = float(self.distances[np.argmin(self.energies)])
            return f"{name} has {self.lowest:.1f} eV at {where:.2f} Å"
        excess, where = self.largest_jump
        if excess > 0.0:
            return f"{name} jumps by {excess + JUMP:.2g} eV at {where:.2f} Å"
        return None


def scan_pairs(
    model: NequIPLRPotential, progress: Callable[[str], None] = lambda text: None
) -> tuple[PairScan, ...]:
    """Scan every two elements of a model from 0.3 Å to its cutoff, in double precision.

    A scan is sound if all energies are numbers; if the atoms repel one another at all distances up
    to 0.7 of the sum of their covalent radii, or up to their shortest distance in the training
    data where that is known and shorter; if no energy is more than 15 eV below that of the
    separated atoms; and if energies change by the integral of the forces, that is without jumps.

    Parameters
    ----------
    model : NequIPLRPotential
        It is left as it is.
    progress : callable
        Called with one line for each pair.
    """
    exact = copy.deepcopy(model).double().eval()
    config = exact.config
    cutoff = max(config.r_max, config.charge_cutoff)
    count = 2 * round((cutoff - FIRST_DISTANCE) / STEP / 2) + 1
    distances = FIRST_DISTANCE + STEP * np.arange(count)
    scans = []
    for pair in combinations_with_replacement(config.type_names, 2):
        progress(f"pair scan {pair[0]}–{pair[1]}")
        energies, forces = _evaluate(exact, pair, distances)
        wall = _wall(exact, pair)
        scans.append(PairScan(pair, distances, energies - energies[-1], forces, wall))
    return tuple(scans)


def _wall(model: NequIPLRPotential, pair: tuple[str, str]) -> float:
    """Distance up to which two elements have to repel one another, Å."""
    wall = SHORTEST_BOND * sum(float(covalent_radii[atomic_numbers[name]]) for name in pair)
    if model.config.shortest_distances is not None:
        first, second = (model.config.type_names.index(name) for name in pair)
        wall = min(wall, model.config.shortest_distances[first][second])
    return wall


def _evaluate(
    model: NequIPLRPotential, pair: tuple[str, str], distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Energies (eV) and −dE/dr (eV/Å), shapes (D,); NaN where an evaluation fails."""
    energies, forces = [], []
    for part in np.array_split(distances, len(distances) // _BATCH + 1):
        graphs = [model.build_graph(pair, np.array([[0.0, 0.0, 0.0], [0.0, 0.0, r]])) for r in part]
        try:
            output = model(AtomicGraph.collate(graphs))
        except (ConvergenceError, torch.linalg.LinAlgError):
            energies.append(np.full(len(part), np.nan))
            forces.append(np.full(len(part), np.nan))
            continue
        energies.append(output.energy.numpy())
        forces.append(output.forces.numpy().reshape(-1, 2, 3)[:, 1, 2])
    return np.concatenate(energies), np.concatenate(forces)
