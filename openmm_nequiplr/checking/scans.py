"""Pair scans: the energy of two isolated atoms must be smooth and repulsive at short distances."""

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

#: First distance of a scan, and its step, Å.
FIRST_DISTANCE = 0.3
STEP = 0.02
#: Shortest possible bond as a fraction of the sum of two covalent radii.
SHORTEST_BOND = 0.7
#: Largest plausible binding energy, eV; the strongest bond, of CO, has 11.1 eV.
DEEPEST_WELL = 15.0
#: Allowed difference of the energy from the integral of the forces: absolute (eV) and relative.
JUMP, RELATIVE_JUMP = 0.005, 1e-3

_BATCH = 400


@dataclass(frozen=True)
class PairScan:
    """Energies and forces of two isolated atoms of zero total charge at D distances.

    Parameters
    ----------
    pair : tuple of str
        Elements.
    distances : numpy.ndarray, shape (D,), Å
        From 0.3 Å to the cutoff of the model.
    energies : numpy.ndarray, shape (D,), eV
        Relative to the energy at the longest distance.
    forces : numpy.ndarray, shape (D,), eV/Å
        −dE/dr, positive if the atoms repel each other.
    wall : float, Å
        Distance up to which the atoms must repel each other.
    """

    pair: tuple[str, str]
    distances: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    wall: float

    @property
    def repulsive_to(self) -> float:
        """Largest distance up to which the atoms always repel each other, Å; 0 if none."""
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
        """Largest excess of |ΔE + ∫F dr| over the tolerance (eV, ≤ 0 if smooth), and its place (Å).

        The integral over two steps is computed by Simpson's rule.
        """
        f, e = self.forces, self.energies
        change = e[2:] - e[:-2]
        integral = np.diff(self.distances)[0] / 3.0 * (f[2:] + 4.0 * f[1:-1] + f[:-2])
        excess = np.abs(change + integral) - JUMP - RELATIVE_JUMP * np.abs(change)
        worst = int(np.argmax(excess))
        return float(excess[worst]), float(self.distances[worst + 1])

    @property
    def problem(self) -> str | None:
        """Short description of the problem; None if there is none."""
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
    """Scan each pair of elements of a model from 0.3 Å to its cutoff, in double precision.

    A scan is sound under four conditions. All energies are finite. The atoms repel each other at
    all distances up to 0.7 times the sum of their covalent radii, or up to their shortest distance
    in the training data if it is known and shorter. No energy is more than 15 eV below that of the
    separated atoms. Energy differences equal the integral of the forces, that is, there are no
    jumps.

    Parameters
    ----------
    model : NequIPLRPotential
        It is not modified.
    progress : callable
        Called with a line of text for each pair.
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
    """Distance up to which two elements must repel each other, Å."""
    wall = SHORTEST_BOND * sum(float(covalent_radii[atomic_numbers[name]]) for name in pair)
    if model.config.shortest_distances is not None:
        first, second = (model.config.type_names.index(name) for name in pair)
        wall = min(wall, model.config.shortest_distances[first][second])
    return wall


def _evaluate(
    model: NequIPLRPotential, pair: tuple[str, str], distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Energies (eV) and −dE/dr (eV/Å), shape (D,); NaN if an evaluation fails."""
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
