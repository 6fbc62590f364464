"""What the potential returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PotentialOutput:
    """What the model says of a batch of B structures with N atoms.

    Parameters
    ----------
    energy : torch.Tensor, float64, shape (B,), eV
    forces : torch.Tensor or None, float64, shape (N, 3), eV/Å
    stress : torch.Tensor or None, float64, shape (B, 3, 3), eV/Å³
        dE/dε / V, zero for non-periodic structures.
    charges : torch.Tensor, float64, shape (N,), e
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    energy_short_range, energy_electrostatic : torch.Tensor, float64, shape (B,), eV
    dipole : torch.Tensor, float64, shape (B, 3), e Å
        Σ q r with the positions as given.
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
