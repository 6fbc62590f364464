"""The Coulomb matrix near fixed positions, to first order.

Training sees the same positions in every epoch. Energies, charges and forces need K and dK/dR
there and nothing beyond, also for gradients by the weights, so both are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LinearizedCoulomb:
    """K(R₀) and its gradient for one structure of N atoms.

    Parameters
    ----------
    constant : torch.Tensor, float64, shape (N, N), eV/e²
        K at the positions R₀.
    gradient : torch.Tensor, float64, shape (N, N, 3), eV/e²/Å
        dK_ij/dR_i = −dK_ij/dR_j; zero on the diagonal, which translations leave alone.
    origin : torch.Tensor, float64, shape (N, 3), Å
        R₀.
    """

    constant: torch.Tensor
    gradient: torch.Tensor
    origin: torch.Tensor

    def to(self, device: torch.device | str) -> LinearizedCoulomb:
        """The same on another device."""
        return LinearizedCoulomb(
            self.constant.to(device), self.gradient.to(device), self.origin.to(device)
        )

    def matrix(self, positions: torch.Tensor) -> torch.Tensor:
        """K with the right value and first derivative at R₀.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å

        Returns
        -------
        torch.Tensor, float64, shape (N, N), eV/e²
        """
        moved = positions - self.origin
        # Σ_c G_ijc (δ_ic − δ_jc), without the N × N × 3 array of differences
        first = torch.einsum("ijc,ic->ij", self.gradient, moved)
        return self.constant + first + first.T
