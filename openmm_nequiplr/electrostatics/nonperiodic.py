"""Gaussian charges in free space."""

# TorchScript compiles the operator and reads its annotations: no postponed ones here
import torch

from ..ops.pair_formulas import pair_width
from .gaussian import (
    GaussianScreening,
    pair_energy,
    pair_potential,
    pair_potential_of,
    self_coefficient,
)
from .operator import CoulombOperator, EnergyFunction, block_product


class FreeSpaceCoulomb(CoulombOperator):
    """Coulomb operator of N Gaussian charges without periodic images.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    coulomb_constant : float, eV Å/e²
    offset : float, Å
        Added to each component of every pair vector x_i − x_j, i < j; used only by the operator
        of the published code.
    replicas : int
        Number R of copies of a system; different copies do not interact.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        widths: torch.Tensor,
        coulomb_constant: float,
        offset: float = 0.0,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self.constant, self.offset, self.replicas = coulomb_constant, offset, replicas
        self.setup(positions, widths)

    def setup(self, positions: torch.Tensor, widths: torch.Tensor) -> None:
        """Set the positions, shape (N, 3), Å, and widths, shape (N,), Å."""
        count = positions.shape[0] // self.replicas
        self.widths = widths
        self.pairs = torch.triu_indices(count, count, offset=1, device=positions.device)
        if self.replicas > 1:
            starts = count * torch.arange(self.replicas, device=positions.device)
            self.pairs = (self.pairs.unsqueeze(1) + starts.unsqueeze(-1)).reshape(2, -1)
        first, second = self.pairs[0], self.pairs[1]
        vectors = positions.index_select(0, first) - positions.index_select(0, second)
        self.distance = torch.linalg.vector_norm(vectors + self.offset, dim=-1)
        width = pair_width(widths.index_select(0, first), widths.index_select(0, second))
        self.coefficient = self.constant * pair_potential(self.distance, width)
        self.kernel = self.coefficient[:0]

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), or its blocks, (R, N/R, N/R), eV/e²."""
        count = self.widths.shape[0] // self.replicas
        rows, columns = self.pairs[0], self.pairs[1]
        shape, diagonal = [count, count], self.diagonal()
        if self.replicas > 1:
            columns, shape = columns % count, [self.replicas, count, count]
            diagonal = diagonal.reshape(self.replicas, count)
        zeros = torch.zeros(
            [self.widths.shape[0], count], dtype=self.widths.dtype, device=self.widths.device
        )
        upper = zeros.index_put([rows, columns], self.coefficient).reshape(shape)
        return upper + upper.transpose(-1, -2) + torch.diag_embed(diagonal)

    def diagonal(self) -> torch.Tensor:
        """k_e/(√π σ), shape (N,), eV/e²."""
        return self.constant * self_coefficient(self.widths)

    def prepare(self) -> None:
        """Form K, whose products are faster than sums over pairs."""
        self.kernel = self.matrix()

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        if self.kernel.shape[0] > 0 and not torch.is_grad_enabled():
            return block_product(self.kernel, charges)
        pairs = pair_potential_of(self.pairs, self.coefficient, charges)
        return pairs + self.diagonal() * charges

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV."""
        return pair_energy(self.pairs, self.coefficient, self.diagonal(), charges, subtracted)

    @torch.jit.unused
    def screening(self) -> EnergyFunction:
        """Correction from the point-charge sum of the same atoms to this operator."""
        return GaussianScreening(self.pairs, self.distance, self.widths, self.constant)
