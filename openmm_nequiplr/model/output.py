"""Results of the potential and of evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from .observables import Observation


@dataclass(frozen=True)
class PotentialOutput:
    """Results of the model for a batch of B structures with N atoms.

    Parameters
    ----------
    energy : torch.Tensor, float64, shape (B,), eV
    forces : torch.Tensor or None, float64, shape (N, 3), eV/Å
    stress : torch.Tensor or None, float64, shape (B, 3, 3), eV/Å³
        dE/dε / V; zero for structures that are not periodic.
    charges : torch.Tensor, float64, shape (N,), e
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    energy_short_range, energy_electrostatic : torch.Tensor, float64, shape (B,), eV
    dipole : torch.Tensor, float64, shape (B, 3), e Å
        Σ q r with the given positions.
    born_charges : torch.Tensor or None, float64, shape (N, 3, 3), e
        As in :class:`.response.Response`.
    polarizability : torch.Tensor or None, float64, shape (B, 3, 3), e Å²/V
        As in :class:`.response.Response`; NaN for periodic structures.
    """

    energy: torch.Tensor
    forces: torch.Tensor | None
    stress: torch.Tensor | None
    charges: torch.Tensor
    electronegativity: torch.Tensor
    hardness: torch.Tensor
    energy_short_range: torch.Tensor
    energy_electrostatic: torch.Tensor
    dipole: torch.Tensor
    born_charges: torch.Tensor | None = None
    polarizability: torch.Tensor | None = None


@dataclass(frozen=True)
class Evaluation:
    """Results for one structure of N atoms, as float64 NumPy arrays.

    Parameters
    ----------
    energy : float, eV
    forces : numpy.ndarray or None, shape (N, 3), eV/Å
    outside_forces : numpy.ndarray or None, shape (M, 3), eV/Å
        Forces on outside charges, if there are any.
    stress : numpy.ndarray or None, shape (3, 3), eV/Å³
        dE/dε / V.
    charges : numpy.ndarray, shape (N,), e
    adjoint : numpy.ndarray, shape (N,), e
        Adjoint charges w.
    electronegativity : numpy.ndarray, shape (N,), eV/e
    dipole : numpy.ndarray, shape (3,), e Å
        Σ q r with the given positions; in a cell it depends on the choice of images.
    parts : dict
        Parts of the energy, eV: "short_range", "electronegativity" (χ·Q), "hardness" (½JQ²),
        "outside" (with a field or outside charges) and "coulomb". They are scaled and sum to the
        energy.
    electrostatic : float, eV
        Sum of all parts except the short-range one before scaling: the derivative of the energy by
        ``coulomb_scale``.
    residual : float, eV/e
        Largest residual of the two solves.
    iterations : tuple of 2 int
        Iterations of the solves for the charges and for the adjoint charges; 0 for a dense solver.
    observed : tuple of Observation
        Results of the requested observables.
    replica_energies : numpy.ndarray or None, shape (R,), eV
        Energy of each replica; None for a single system.
    """

    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None
    charges: np.ndarray
    adjoint: np.ndarray
    electronegativity: np.ndarray
    dipole: np.ndarray
    parts: dict[str, float] = field(default_factory=dict)
    residual: float = 0.0
    iterations: tuple[int, int] = (0, 0)
    outside_forces: np.ndarray | None = None
    electrostatic: float = 0.0
    observed: tuple[Observation, ...] = ()
    replica_energies: np.ndarray | None = None
