"""The protocol of Coulomb operators."""

# TorchScript compiles operators and reads their annotations: no postponed ones here
from typing import Any, Protocol

import torch


class EnergyFunction(Protocol):
    """An energy e(q) of charges q, shape (N,)."""

    def energy_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, a scalar, eV."""
        ...


def block_product(matrix: torch.Tensor, charges: torch.Tensor) -> torch.Tensor:
    """K q, shape (N,), for a matrix (N, N), or R blocks of it on the diagonal, (R, N/R, N/R)."""
    return (matrix @ charges.reshape(matrix.shape[:-1]).unsqueeze(-1)).reshape(-1)


class CoulombOperator(torch.nn.Module):
    """The matrix K of the Coulomb energy e(q) = ½ qᵀKq of N Gaussian charges, at fixed positions.

    K contains the pairs, the images and the self-energy k_e/(√π σ) of every Gaussian, but not the
    hardness J. All tensors are float64, energies are in eV and charges in e.

    For R replicas of N/R consecutive atoms each, K is block-diagonal with R blocks.

    A subclass defines at least ``matrix`` and overrides what it can compute faster. The smooth part
    of a periodic operator is that of a point-charge Ewald sum: everything except its pairs
    k_e q_i q_j erfc(r/√2η)/r. Other code may evaluate the smooth part and add ``rest_difference``.
    """

    #: Ewald width η of the smooth part in Å; 0 without one.
    smoothing_width: float
    #: Smooth potential on the mesh of the charges of the last :meth:`potential`, linear in them,
    #: for :meth:`energy_difference`; empty without a mesh.
    field: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.smoothing_width = 0.0
        self.field = torch.zeros(0)

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), or its blocks for replicas, shape (R, N/R, N/R), eV/e²."""
        raise NotImplementedError

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        return self.matrix().diagonal()

    def prepare(self) -> None:
        """Prepare for many products at one geometry; called without gradients."""

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, without forming K where that is cheaper."""
        return block_product(self.matrix(), charges)

    def low_rank(self) -> torch.Tensor:
        """Columns c, shape (N, r), of a part Σ c cᵀ of K for the preconditioner.

        The part applies to charge vectors that sum to zero; it excludes the reciprocal sum.
        """
        return torch.zeros(0, 0, dtype=torch.float64)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ qᵀKq, a scalar, eV."""
        return self.energy_difference(charges, torch.zeros_like(charges))

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV.

        Parameters
        ----------
        charges, subtracted : torch.Tensor, float64, shape (N,), e
            q and p.
        fields : list of 2 torch.Tensor, optional
            The :attr:`field` of q and of p, if known.
        """
        own, other = self.potential(charges), self.potential(subtracted)
        return 0.5 * (charges @ own - subtracted @ other)

    def rest_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) without the smooth part of the point-charge sums of q and p, eV.

        The self-interaction and the background of the smooth part are excluded too.
        """
        raise NotImplementedError

    @torch.jit.unused
    def screening(self) -> Any:
        """Energy of K minus that of a point-charge sum over the same atoms."""
        raise NotImplementedError


class MatrixCoulomb(CoulombOperator):
    """Coulomb operator given by its matrix.

    Parameters
    ----------
    matrix : torch.Tensor, float64, shape (N, N), eV/e²
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.kernel = matrix

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        return self.kernel
