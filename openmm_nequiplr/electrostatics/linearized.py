"""First-order expansion of the Coulomb matrix about a fixed geometry.

Training evaluates the same positions in every epoch. Energies, charges, forces and stresses, and
their gradients with respect to the weights, need only K and its first derivatives by positions and
strain at this geometry. These are therefore computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..ops.image_sums import SIX


def six(tensor: torch.Tensor) -> torch.Tensor:
    """The components `SIX` of symmetric tensors, shape (..., 3, 3) to (..., 6)."""
    return tensor[..., SIX[0], SIX[1]]


@dataclass(frozen=True)
class LinearizedCoulomb:
    """K(R₀) and its derivatives for one structure of N atoms.

    Parameters
    ----------
    constant : torch.Tensor, float64, shape (N, N), eV/e²
        K at the positions R₀.
    gradient : torch.Tensor, float64, shape (N, N, 3), eV/e²/Å
        dK_ij/dR_i = −dK_ij/dR_j; zero on the diagonal, which is invariant to translations.
    origin : torch.Tensor, float64, shape (N, 3), Å
        Positions R₀.
    cell : torch.Tensor, float64, shape (3, 3), Å
        Cell at R₀.
    strain : torch.Tensor, optional, float64, shape (6, N, N), eV/e²
        dK/dε for a homogeneous strain of cell and positions, components `SIX`.
    """

    constant: torch.Tensor
    gradient: torch.Tensor
    origin: torch.Tensor
    cell: torch.Tensor
    strain: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> LinearizedCoulomb:
        """Copy on another device."""
        moved = (t if t is None else t.to(device) for t in vars(self).values())
        return LinearizedCoulomb(*moved)  # type: ignore[arg-type]

    def matrix(self, positions: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """K to first order in the displacement from R₀.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, optional, float64, shape (3, 3), Å
            Cell, if it may differ from the one at R₀; needs ``strain``.

        Returns
        -------
        torch.Tensor, float64, shape (N, N), eV/e²
        """
        moved, constant = positions - self.origin, self.constant
        if cell is not None:
            assert self.strain is not None
            tilt = torch.linalg.solve(self.cell, cell - self.cell)  # atoms follow the cell
            moved = moved - self.origin @ tilt
            double = tilt.new_tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
            strain = double * six(0.5 * (tilt + tilt.t()))
            constant = constant + torch.einsum("cij,c->ij", self.strain, strain)
        # Σ_c G_ijc (δ_ic − δ_jc), without the N × N × 3 array of differences
        first = torch.einsum("ijc,ic->ij", self.gradient, moved)
        return constant + first + first.T
