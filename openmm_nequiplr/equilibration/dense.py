"""Dense charge equilibration by LU factors of the bordered matrix.

Minimising χᵀQ + ½QᵀAQ subject to ΣQ = Q_tot gives the linear system

    ⎡A  1⎤ ⎡Q⎤   ⎡ −χ  ⎤
    ⎣1ᵀ 0⎦ ⎣λ⎦ = ⎣Q_tot⎦

whose matrix is indefinite, hence LU and not Cholesky.
"""

# TorchScript compiles DenseSolver and reads its annotations: no postponed ones here
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import ConvergenceError


class Equilibration(NamedTuple):
    """Result of a charge equilibration.

    Parameters
    ----------
    charges : torch.Tensor, float64, shape (N,), e
    multiplier : torch.Tensor, float64, shape (B,), eV/e
        Lagrange multiplier of the charge constraint.
    iterations : int
        Iterations of an iterative solver, 0 for a dense one.
    residual : float
        Largest |A Q + χ + λ| of all atoms, eV/e.
    failure : str
        Why the charges are no solution; empty if they are.
    gradient : torch.Tensor, float64, shape (N,), eV/e
        A Q + χ; empty for a batch.
    field : torch.Tensor
        What the charges make on the mesh of the operator, see
        :class:`openmm_nequiplr.electrostatics.CoulombOperator`; empty without a mesh.
    """

    charges: torch.Tensor
    multiplier: torch.Tensor
    iterations: int
    residual: float
    failure: str
    gradient: torch.Tensor
    field: torch.Tensor


def failed(reason: str) -> str:
    """Message of an equilibration that failed."""
    return (
        f"charge equilibration failed: {reason} (atoms on top of one another, non-finite positions "
        "and a hardness near zero are other usual causes)"
    )


def bordered(matrix: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Append the row and column of the charge constraint.

    Parameters
    ----------
    matrix : torch.Tensor, shape (..., n, n)
    mask : torch.Tensor, shape (..., n)
        1 for atoms, 0 for padding.

    Returns
    -------
    torch.Tensor, shape (..., n + 1, n + 1)
    """
    corner = torch.zeros_like(mask[..., :1])
    top = torch.cat((matrix, mask.unsqueeze(-1)), dim=-1)
    bottom = torch.cat((mask, corner), dim=-1).unsqueeze(-2)
    return torch.cat((top, bottom), dim=-2)


class DenseSolver(torch.nn.Module):
    """LU factors of one structure's bordered matrix, for several right-hand sides; no gradient.

    Parameters
    ----------
    matrix : torch.Tensor, optional, float64, shape (N, N), eV/e²
        A = K + diag(J), for :meth:`factorize`.

    Raises
    ------
    ConvergenceError
        If the matrix is singular or not finite.
    """

    def __init__(self, matrix: torch.Tensor | None = None) -> None:
        super().__init__()
        empty = torch.zeros(0, 0, dtype=torch.float64)
        for name in ("matrix", "factors", "pivots"):
            self.register_buffer(name, empty, persistent=False)
        if matrix is not None:
            self.factorize(matrix)

    def factorize(self, matrix: torch.Tensor) -> None:
        """Factorise another A, shape (N, N), eV/e²."""
        with torch.no_grad():
            full = bordered(matrix, torch.ones_like(matrix[0]))
            if not bool(torch.isfinite(full).all()):
                raise ConvergenceError(failed("the Coulomb matrix is not finite"))
            factors, pivots, info = torch.linalg.lu_factor_ex(full)
            if int(info) != 0:
                raise ConvergenceError(failed("the matrix is singular"))
            self.matrix, self.factors, self.pivots = matrix, factors, pivots

    def solve(
        self,
        electronegativity: torch.Tensor,
        total_charge: torch.Tensor,
        guess: torch.Tensor | None = None,
    ) -> Equilibration:
        """Charges at the minimum.

        Parameters
        ----------
        electronegativity : torch.Tensor, float64, shape (N,), eV/e
        total_charge : torch.Tensor, float64, scalar, e
        guess
            Not needed.
        """
        with torch.no_grad():
            end = total_charge.reshape(1)
            right = torch.cat((-electronegativity, end)).unsqueeze(-1)
            solution = torch.linalg.lu_solve(self.factors, self.pivots, right).squeeze(-1)
            charges, multiplier = solution[:-1], solution[-1:]
            gradient = self.matrix @ charges + electronegativity
            residual = float((gradient + multiplier).abs().max())
        if not residual < float("inf"):
            raise ConvergenceError(failed("the charges are not finite"))
        return Equilibration(charges, multiplier, 0, residual, "", gradient, gradient[:0])


def pad_structures(
    matrices: Sequence[torch.Tensor], counts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack matrices of different sizes, with ones on the diagonal of the padding.

    Returns
    -------
    padded : torch.Tensor, shape (B, n, n)
    mask : torch.Tensor, shape (B, n)
        1 for atoms, 0 for padding; n is the largest count.
    """
    size = max(counts)
    mask = matrices[0].new_zeros(len(counts), size)
    padded = []
    for row, (matrix, count) in enumerate(zip(matrices, counts, strict=True)):
        mask[row, :count] = 1.0
        if count == size:
            padded.append(matrix)
            continue
        block = torch.nn.functional.pad(matrix, (0, size - count, 0, size - count))
        padded.append(block + torch.diag(1.0 - mask[row]))
    return torch.stack(padded), mask


def solve_batch(
    matrices: Sequence[torch.Tensor],
    electronegativity: torch.Tensor,
    total_charge: torch.Tensor,
    counts: Sequence[int],
) -> Equilibration:
    """Equilibrate several structures in one solve; twice differentiable.

    Parameters
    ----------
    matrices : sequence of B tensors, float64, shape (n_b, n_b), eV/e²
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
    total_charge : torch.Tensor, float64, shape (B,), e
    counts : sequence of int, length B
        Atoms of each structure; they sum to N.

    Raises
    ------
    ConvergenceError
        If a matrix is singular or not finite.
    """
    padded, mask = pad_structures(matrices, counts)
    atoms = mask.to(torch.bool)
    rhs = padded.new_zeros(mask.shape).masked_scatter(atoms, -electronegativity)
    rhs = torch.cat((rhs, total_charge.unsqueeze(-1)), dim=-1)
    try:
        solution = torch.linalg.solve(bordered(padded, mask), rhs)
    except RuntimeError as error:
        raise ConvergenceError(failed(str(error))) from error
    charges, multiplier = solution[:, :-1], solution[:, -1]
    with torch.no_grad():
        gap = torch.einsum("bij,bj->bi", padded, charges) - rhs[:, :-1] + multiplier.unsqueeze(-1)
        residual = float((gap * mask).abs().max())
    if residual != residual:
        raise ConvergenceError(failed("the charges are not finite"))
    nothing = multiplier.detach()[:0]
    return Equilibration(charges[atoms], multiplier, 0, residual, "", nothing, nothing)
