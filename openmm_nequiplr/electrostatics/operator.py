"""The protocol of Coulomb operators."""

# TorchScript compiles operators and reads their annotations: no postponed ones here
from typing import Any, Protocol

import torch


class EnergyFunction(Protocol):
    """Something that has an energy for charges of shape (N,)."""

    def energy_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, a scalar, eV."""
        ...


def block_product(matrix: torch.Tensor, charges: torch.Tensor) -> torch.Tensor:
    """K q, shape (N,), for a matrix (N, N), or R blocks of it on the diagonal, (R, N/R, N/R)."""
    return (matrix @ charges.reshape(matrix.shape[:-1]).unsqueeze(-1)).reshape(-1)


class CoulombOperator(torch.nn.Module):
    """The matrix K of the Coulomb energy e(q) = ½ qᵀKq of N Gaussian charges, at fixed positions.

    K holds pairs, images and the self-energy k_e/(√π σ) of every Gaussian; the hardness J is not
    part of it. All tensors are float64; energies are eV, charges e.

    Of R replicas, N/R atoms each one after another, K has R blocks on the diagonal.

    An operator has ``matrix`` at least; others override what they do faster. The smooth part of a
    periodic operator is that of a point-charge Ewald sum: all but its pairs k_e q_i q_j
    erfc(r/√2η)/r. Other code may sum it, beside ``rest_difference``.
    """

    #: η in Å of the smooth part; 0 without one.
    smoothing_width: float
    #: What the charges of the last :meth:`potential` make on a mesh, a linear function of them, for
    #: :meth:`energy_difference`; empty without a mesh.
    field: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.smoothing_width = 0.0
        self.field = torch.zeros(0)

    def matrix(self) -> torch.Tensor:
        """K itself, shape (N, N), or its blocks, (R, N/R, N/R), eV/e²: the slow, obvious form."""
        raise NotImplementedError

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        return self.matrix().diagonal()

    def prepare(self) -> None:
        """Get ready for many products at one geometry; called without gradients."""

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, without forming K where that is cheaper."""
        return block_product(self.matrix(), charges)

    def low_rank(self) -> torch.Tensor:
        """Columns c, shape (N, r), of a part Σ c cᵀ of K that a preconditioner is to know.

        It is that on charges that sum to zero; long waves are left out.
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
            Their :attr:`field`, if known.
        """
        own, other = self.potential(charges), self.potential(subtracted)
        return 0.5 * (charges @ own - subtracted @ other)

    def rest_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) less the smooth part of the point-charge sums of q and p, eV.

        What the smooth part holds of the charges themselves and of the background is not in here.
        """
        raise NotImplementedError

    @torch.jit.unused
    def screening(self) -> Any:
        """The energy of K less that of a point-charge sum over the same atoms."""
        raise NotImplementedError


class MatrixCoulomb(CoulombOperator):
    """An operator that is no more than its matrix.

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
