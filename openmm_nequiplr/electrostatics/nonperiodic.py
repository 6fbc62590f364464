"""Gaussian charges in free space."""

from __future__ import annotations

import torch

from .gaussian import GaussianScreening, pair_potential, pair_width, self_coefficient


class FreeSpaceCoulomb:
    """Coulomb operator of N Gaussian charges without periodic images.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    coulomb_constant : float, eV Å/e²
    offset : float, Å
        Added to each component of every pair vector x_i − x_j, i < j (of use to the published
        code's operator only).
    """

    def __init__(
        self,
        positions: torch.Tensor,
        widths: torch.Tensor,
        coulomb_constant: float,
        offset: float = 0.0,
    ) -> None:
        self._count = int(positions.shape[0])
        self._widths = widths
        self._constant = coulomb_constant
        self._pairs = torch.triu_indices(
            self._count, self._count, offset=1, device=positions.device
        )
        first, second = self._pairs
        vectors = positions.index_select(0, first) - positions.index_select(0, second) + offset
        self._distance = torch.linalg.vector_norm(vectors, dim=-1)
        width = pair_width(widths[first], widths[second])
        self._coefficient = coulomb_constant * pair_potential(self._distance, width)

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        zeros = self._widths.new_zeros(self._count, self._count)
        upper = zeros.index_put((self._pairs[0], self._pairs[1]), self._coefficient)
        return upper + upper.T + torch.diag(self.diagonal())

    def diagonal(self) -> torch.Tensor:
        """k_e/(√π σ), shape (N,), eV/e²."""
        return self._constant * self_coefficient(self._widths)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        first, second = self._pairs
        result = self.diagonal() * charges
        result = result.index_add(0, first, self._coefficient * charges[second])
        return result.index_add(0, second, self._coefficient * charges[first])

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ qᵀKq, a scalar, eV."""
        first, second = self._pairs
        pairs = (self._coefficient * charges[first] * charges[second]).sum()
        return pairs + 0.5 * (self.diagonal() * charges * charges).sum()

    def screening(self) -> GaussianScreening:
        """The part that a point-charge sum over the same atoms lacks."""
        return GaussianScreening(self._pairs, self._distance, self._widths, self._constant)
