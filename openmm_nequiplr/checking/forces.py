"""Comparison of forces with finite differences of the energy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from ..calculator import NequIPLRCalculator
from ..model import NequIPLRPotential

#: Absolute (eV/Å) and relative tolerance of the difference.
TOLERANCE, RELATIVE_TOLERANCE = 2e-3, 1e-3

_STEP = 2e-3  # Å


@dataclass(frozen=True)
class ForceCheck:
    """Components of the forces on S atoms, each along a random direction.

    Parameters
    ----------
    forces : numpy.ndarray, shape (S,), eV/Å
        Forces of the model in its own precision.
    differences : numpy.ndarray, shape (S,), eV/Å
        Finite differences of the energy in double precision.
    """

    forces: np.ndarray
    differences: np.ndarray

    @property
    def largest_error(self) -> float:
        """Largest difference between the two, eV/Å; infinite if any is NaN."""
        return float(
            np.nan_to_num(np.abs(self.forces - self.differences), nan=np.inf).max(initial=0.0)
        )

    @property
    def problem(self) -> str | None:
        """Short description of the problem; None if there is none."""
        allowed = TOLERANCE + RELATIVE_TOLERANCE * np.abs(self.differences)
        if (np.abs(self.forces - self.differences) <= allowed).all():
            return None
        error = 1000.0 * self.largest_error
        return f"forces differ from finite differences by up to {error:.3g} meV/Å"


def check_forces(
    model: NequIPLRPotential, structures: Sequence[Atoms], atoms_each: int, rng: np.random.Generator
) -> ForceCheck:
    """Compare forces with fourth-order finite differences, for random atoms and directions.

    Parameters
    ----------
    model : NequIPLRPotential
    structures : sequence of ase.Atoms
    atoms_each : int
        Number of atoms of each structure.
    rng : numpy.random.Generator
    """
    own = NequIPLRCalculator(model)
    # finite differences need a tighter charge tolerance, which also refines the mesh
    double = copy.deepcopy(model).to(torch.float64)
    exact = NequIPLRCalculator(double, charge_tolerance=1e-7, max_iterations=1000)
    forces, differences = [], []
    for start in structures:
        atoms = start.copy()
        field = own.get_property("forces", atoms)
        for k in rng.choice(len(atoms), min(atoms_each, len(atoms)), replace=False):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            energies = []
            for shift in (-2, -1, 1, 2):
                atoms.positions[k] = start.positions[k] + shift * _STEP * direction
                energies.append(exact.get_property("energy", atoms))
            atoms.positions[k] = start.positions[k]
            slope = np.dot([1.0, -8.0, 8.0, -1.0], energies) / (12.0 * _STEP)
            forces.append(float(field[k] @ direction))
            differences.append(-float(slope))
    return ForceCheck(np.array(forces), np.array(differences))
