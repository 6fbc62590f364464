"""Dense charge equilibration by LU factors of the bordered matrix.

Minimising χᵀQ + ½QᵀAQ subject to ΣQ = Q_tot gives the linear system

    ⎡A  1⎤ ⎡Q⎤   ⎡ −χ  ⎤
    ⎣1ᵀ 0⎦ ⎣λ⎦ = ⎣Q_tot⎦

whose matrix is indefinite, hence LU and not Cholesky.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import ConvergenceError


@dataclass(frozen=True)
class Equilibration:
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
    """

    charges: torch.Tensor
    multiplier: torch.Tensor
    iterations: int
    residual: float


def _failed(reason: str) -> ConvergenceError:
    return ConvergenceError(
        f"charge equilibration failed: {reason}; atoms on top of one another, non-finite "
        "positions or a hardness near zero are the usual causes"
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
    corner = mask.new_zeros(*mask.shape[:-1], 1)
    top = torch.cat((matrix, mask.unsqueeze(-1)), dim=-1)
    bottom = torch.cat((mask, corner), dim=-1).unsqueeze(-2)
    return torch.cat((top, bottom), dim=-2)


class DenseSolver:
    """LU factors of one structure's bordered matrix, for several right-hand sides; no gradient.

    Parameters
    ----------
    matrix : torch.Tensor, float64, shape (N, N), eV/e²
        A = K + diag(J).

    Raises
    ------
    ConvergenceError
        If the matrix is singular or not finite.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix.detach()
        full = bordered(self._matrix, self._matrix.new_ones(self._matrix.shape[0]))
        if not bool(torch.isfinite(full).all()):
            raise _failed("the Coulomb matrix is not finite")
        try:
            self._factors, self._pivots = torch.linalg.lu_factor(full)
        except RuntimeError as error:
            raise _failed(str(error)) from error

    def solve(self, electronegativity: torch.Tensor, total_charge: torch.Tensor) -> Equilibration:
        """Charges for χ of shape (N,) in eV/e and a total charge (scalar tensor) in e."""
        chi = electronegativity.detach()
        rhs = torch.cat((-chi, total_charge.detach().reshape(1))).unsqueeze(-1)
        solution = torch.linalg.lu_solve(self._factors, self._pivots, rhs).squeeze(-1)
        charges, multiplier = solution[:-1], solution[-1:]
        error = (self._matrix @ charges + chi + multiplier).abs().max()
        if not bool(torch.isfinite(error)):
            raise _failed("the charges are not finite")
        return Equilibration(charges, multiplier, 0, float(error))


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
        raise _failed(str(error)) from error
    charges, multiplier = solution[:, :-1], solution[:, -1]
    with torch.no_grad():
        gap = torch.einsum("bij,bj->bi", padded, charges) - rhs[:, :-1] + multiplier.unsqueeze(-1)
        residual = float((gap * mask).abs().max())
    if residual != residual:
        raise _failed("the charges are not finite")
    return Equilibration(charges[atoms], multiplier, 0, residual)
