"""Dense charge equilibration by LU factorisation of the bordered matrix.

Minimising χᵀQ + ½QᵀAQ subject to ΣQ = Q_tot gives the linear system

    ⎡A  1⎤ ⎡Q⎤   ⎡ −χ  ⎤
    ⎣1ᵀ 0⎦ ⎣λ⎦ = ⎣Q_tot⎦

Its matrix is indefinite, which excludes a Cholesky factorisation. If the charges of several groups
of atoms are constrained, one atom of each group is eliminated instead (:mod:`.constraints`), which
leaves N − F unknowns.
"""

# TorchScript compiles DenseSolver and reads its annotations: no postponed ones here
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..electrostatics.operator import block_product
from ..errors import ConvergenceError
from .constraints import contrast, free_atoms, group_means, group_sizes, group_sums, moved


class Equilibration(NamedTuple):
    """Result of a charge equilibration.

    Parameters
    ----------
    charges : torch.Tensor, float64, shape (N,), e
    multiplier : torch.Tensor, float64, shape (B,) or (F,), eV/e
        Lagrange multiplier λ of each structure, or of each group of atoms with a constrained
        charge.
    iterations : int
        Number of iterations; 0 for a dense solver.
    residual : float
        Largest |A Q + χ + λ| of all atoms, eV/e.
    failure : str
        Reason why the solver failed; empty if it converged.
    gradient : torch.Tensor, float64, shape (N,), eV/e
        A Q + χ; empty for a batch.
    field : torch.Tensor
        The ``field`` of the charges on the mesh of the operator, see
        :class:`openmm_nequiplr.electrostatics.CoulombOperator`; empty without a mesh.
    record : torch.Tensor, float64, shape (K,)
        Numbers of an iterative solve that :func:`.iterative.judged` has yet to check; else empty.
    """

    charges: torch.Tensor
    multiplier: torch.Tensor
    iterations: int
    residual: float
    failure: str
    gradient: torch.Tensor
    field: torch.Tensor
    record: torch.Tensor


def failed(reason: str) -> str:
    """Error message of a failed equilibration."""
    return (
        f"charge equilibration failed: {reason} (atoms on top of one another, non-finite positions "
        "and a hardness near zero are other usual causes)"
    )


def of_replica(bad: torch.Tensor) -> str:
    """Which of several matrices is bad, for a bool tensor of shape () or (R,); in words."""
    return "" if bad.dim() == 0 else " of replica " + str(int(torch.nonzero(bad)[0]))


def bordered(matrix: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Append the row and column of the constraint on the total charge.

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
    """Direct solver with LU factors of the bordered matrix of one structure; not differentiable.

    Parameters
    ----------
    matrix : torch.Tensor, optional, float64, shape (N, N), eV/e²
        A = K + diag(J), for :meth:`factorize`. Of R replicas its blocks, shape (R, N/R, N/R).
    groups : torch.Tensor, optional, int64, shape (N,)
        Group of each atom, from 0 to F − 1, if the charges of F groups are constrained. Replicas
        need none: each block of A has its own constraint.

    Raises
    ------
    ConvergenceError
        If the matrix is singular or not finite.
    """

    groups: torch.Tensor

    def __init__(
        self, matrix: torch.Tensor | None = None, groups: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        empty = torch.zeros(0, 0, dtype=torch.float64)
        for name in ("matrix", "factors", "pivots"):
            self.register_buffer(name, empty, persistent=False)
        self.register_buffer("groups", empty.to(torch.int64).flatten(), persistent=False)
        if matrix is not None:
            self.factorize(matrix, groups)

    def factorize(self, matrix: torch.Tensor, groups: torch.Tensor | None = None) -> None:
        """Factorise A, eV/e²; arguments as for the class."""
        with torch.no_grad():
            if groups is None or matrix.dim() == 3:
                self.groups = self.groups[:0]
                full = bordered(matrix, torch.ones_like(matrix[..., 0]))
            else:
                self.groups = groups
                free, partner = free_atoms(groups, group_sizes(groups))
                full = contrast(contrast(matrix, free, partner).t(), free, partner).t()
            if not bool(torch.isfinite(full).all()):
                where = of_replica(~torch.isfinite(full).all(dim=-1).all(dim=-1))
                raise ConvergenceError(failed("the Coulomb matrix" + where + " is not finite"))
            factors, pivots, info = torch.linalg.lu_factor_ex(full)
            if bool((info != 0).any()):
                raise ConvergenceError(
                    failed("the matrix" + of_replica(info != 0) + " is singular")
                )
            self.matrix, self.factors, self.pivots = matrix, factors, pivots

    def solve(
        self,
        electronegativity: torch.Tensor,
        total_charge: torch.Tensor,
        guess: torch.Tensor | None = None,
    ) -> Equilibration:
        """Equilibrated charges.

        Parameters
        ----------
        electronegativity : torch.Tensor, float64, shape (N,), eV/e
        total_charge : torch.Tensor, float64, scalar or shape (F,), e
            Charge of the structure, or of each group or replica; a scalar applies to each of them.
        guess
            Ignored.
        """
        with torch.no_grad():
            if self.groups.shape[0] > 0:
                charges = self._with_groups(electronegativity, total_charge)
                gradient = self.matrix @ charges + electronegativity
                sizes = group_sizes(self.groups)
                multiplier = -group_sums(gradient, self.groups, sizes) / sizes
                residual = float((gradient + multiplier.index_select(0, self.groups)).abs().max())
            else:
                chi = electronegativity.reshape(self.matrix.shape[:-1])
                held = total_charge.to(chi.device).reshape(-1)
                end = held if chi.dim() == 1 else held.unsqueeze(-1).expand(chi.shape[0], 1)
                right = torch.cat((-chi, end), dim=-1).unsqueeze(-1)
                solution = torch.linalg.lu_solve(self.factors, self.pivots, right).squeeze(-1)
                charges, multiplier = solution[..., :-1].reshape(-1), solution[..., -1:]
                gradient = block_product(self.matrix, charges) + electronegativity
                residual = float((gradient.reshape(chi.shape) + multiplier).abs().max())
                multiplier = multiplier.reshape(-1)
        if not residual < float("inf"):
            raise ConvergenceError(failed("the charges are not finite"))
        none = gradient[:0]
        return Equilibration(charges, multiplier, 0, residual, "", gradient, none, none)

    def _with_groups(self, chi: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        """Equilibrated charges for constrained charges of groups."""
        sizes = group_sizes(self.groups)
        free, partner = free_atoms(self.groups, sizes)
        start = (held / sizes).index_select(0, self.groups)
        right = -contrast(chi + self.matrix @ start, free, partner).unsqueeze(-1)
        amounts = torch.linalg.lu_solve(self.factors, self.pivots, right).squeeze(-1)
        return moved(start, amounts, free, partner)


def pad_structures(
    matrices: Sequence[torch.Tensor], counts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack matrices of different sizes; the padding has ones on its diagonal.

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
    groups: torch.Tensor | None = None,
) -> Equilibration:
    """Equilibrate a batch of structures; twice differentiable.

    Parameters
    ----------
    matrices : sequence of B tensors, float64, shape (n_b, n_b), eV/e²
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
    total_charge : torch.Tensor, float64, shape (B,) or (F,), e
        Charge of each structure, or of each group.
    counts : sequence of int, length B
        Number of atoms of each structure; the sum is N.
    groups : torch.Tensor, optional, int64, shape (N,)
        Group of each atom, numbered through all structures, if the charges of groups are
        constrained.

    Raises
    ------
    ConvergenceError
        If a matrix is singular or not finite.
    """
    if groups is not None:
        return _solve_batch_of_groups(matrices, electronegativity, total_charge, counts, groups)
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
    return Equilibration(charges[atoms], multiplier, 0, residual, "", nothing, nothing, nothing)


def _solve_batch_of_groups(
    matrices: Sequence[torch.Tensor],
    electronegativity: torch.Tensor,
    held: torch.Tensor,
    counts: Sequence[int],
    groups: torch.Tensor,
) -> Equilibration:
    """:func:`solve_batch` for constrained charges of groups."""
    sizes = group_sizes(groups)
    free, partner = free_atoms(groups, sizes)
    start = (held / sizes).index_select(0, groups)
    reduced, rights, first = [], [], 0
    for matrix, count in zip(matrices, counts, strict=True):
        own = slice(first, first + count)
        inside = (free >= first) & (free < first + count)
        pairs = free[inside] - first, partner[inside] - first
        reduced.append(contrast(contrast(matrix, *pairs).t(), *pairs).t())
        rights.append(-contrast(electronegativity[own] + matrix @ start[own], *pairs))
        first += count
    padded, mask = pad_structures(reduced, [len(each) for each in rights])
    atoms = mask.to(torch.bool)
    right = padded.new_zeros(mask.shape).masked_scatter(atoms, torch.cat(rights))
    try:
        amounts = torch.linalg.solve(padded, right)[atoms]
    except RuntimeError as error:
        raise ConvergenceError(failed(str(error))) from error
    charges = moved(start, amounts, free, partner)
    with torch.no_grad():
        products = zip(matrices, charges.split(list(counts)), strict=True)
        gradient = torch.cat([matrix @ own for matrix, own in products]) + electronegativity
        multiplier = -group_sums(gradient, groups, sizes) / sizes
        residual = float((gradient - group_means(gradient, groups, sizes)).abs().max())
    if residual != residual:
        raise ConvergenceError(failed("the charges are not finite"))
    nothing = multiplier[:0]
    return Equilibration(charges, multiplier, 0, residual, "", nothing, nothing, nothing)
