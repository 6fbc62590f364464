"""Preconditioners: approximations of A = K + diag(J) that are easy to invert.

In large periodic cells the Coulomb energy at long wavelengths, proportional to 1/k², slows the
convergence of plain conjugate gradients. M = D + U Λ Uᵀ treats them exactly: the columns of U are
the cosines and sines of the shortest k-vectors, and Λ = 8π k_e/(V k²). Its inverse follows from the
Woodbury identity (Woodbury 1950; Hager 1989, doi:10.1137/1031049). The dipole of a slab is an
additional column.

A preconditioner is a module. ``forward`` applies the inverse of M on charge vectors that sum to
zero (in every group of atoms, if their charges are constrained): M⁻¹ − M⁻¹C(CᵀM⁻¹C)⁻¹CᵀM⁻¹.
``fits`` returns whether the current M suits a structure, ``make`` builds a new one, and ``report``
receives the number of iterations of each solve. The constrained inverse of D replaces D⁻¹ in the
Woodbury identity. On a GPU each operation of a solver iteration costs a kernel launch, so ``make``
forms all products that do not change.
"""

# TorchScript compiles these classes and reads their annotations: no postponed ones here
import math

import torch

from ..electrostatics.reciprocal import half_kvectors
from ..errors import InputError, describe
from .constraints import group_sizes, group_sums, held_apart

#: Largest strain of the cell for which a preconditioner is kept.
_LARGEST_STRAIN = 0.02


def positive_diagonal(kernel_diagonal: torch.Tensor, hardness: torch.Tensor) -> torch.Tensor:
    """Diagonal of A = K + diag(J) for a preconditioner, at least J; shape (N,), eV/e².

    The diagonal of K may be negative in cells that are small compared with the widths. There A is
    positive definite only on charge vectors that sum to zero.
    """
    return kernel_diagonal.clamp(min=0.0) + hardness


class _Diagonal(torch.nn.Module):
    """D⁻¹ under the charge constraints."""

    inverse: torch.Tensor
    weights: torch.Tensor
    groups: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        nothing = torch.zeros(0, dtype=torch.float64)
        for name in ("inverse", "weights"):
            self.register_buffer(name, nothing, persistent=False)
        self.register_buffer("groups", nothing.to(torch.int64), persistent=False)

    def take(self, diagonal: torch.Tensor, groups: torch.Tensor | None) -> None:
        """Set the diagonal, positive, shape (N,), eV/e², and the groups, int64, shape (N,)."""
        self.inverse, self.groups = 1.0 / diagonal, self.groups[:0]
        self.weights = self.inverse.sum()
        if groups is not None:
            self.groups = groups
            self.weights = group_sums(self.inverse, groups, group_sizes(groups))


class JacobiPreconditioner(_Diagonal):
    """Jacobi preconditioner: the diagonal of A.

    Parameters
    ----------
    diagonal : torch.Tensor, optional, float64, shape (N,), eV/e²
        Diagonal of A = K + diag(J); positive.
    groups : torch.Tensor, optional, int64, shape (N,)
        Group of each atom, if the charges of groups are constrained.
    """

    def __init__(
        self, diagonal: torch.Tensor | None = None, groups: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        if diagonal is not None:
            if not bool((diagonal > 0).all()):
                raise InputError(describe("diagonal", float(diagonal.min()), "positive elements"))
            self.take(diagonal.detach(), groups)

    def fits(self, count: int, cell: torch.Tensor) -> bool:
        """Always False, as a new diagonal costs little."""
        return False

    def make(
        self,
        diagonal: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
        groups: torch.Tensor | None = None,
        columns: torch.Tensor | None = None,
    ) -> None:
        """Set the diagonal and groups, as for the class; the other arguments are ignored."""
        self.take(diagonal, groups)

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """Inverse of D on charge vectors that sum to zero, applied to a residual, shape (N,)."""
        if self.groups.shape[0] > 0:
            return held_apart(residual, self.inverse, self.groups, self.weights)
        solved = self.inverse * residual
        return torch.addcmul(solved, self.inverse, solved.sum() / self.weights, value=-1.0)

    def report(self, iterations: int) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing."""


class WoodburyPreconditioner(_Diagonal):
    """D + U Λ Uᵀ with the shortest k-vectors, reused while the atoms move little.

    It is rebuilt when the number of atoms changes, after a strain of two per cent, and when a solve
    takes over ``growth`` iterations more than the first one with it.

    Parameters
    ----------
    coulomb_constant : float, eV Å/e²
    kvectors : int, optional
        Number of k-vectors, one of each ±k; by default an eighth of the number of atoms, and at
        most 200.
    growth : int
    """

    def __init__(
        self, coulomb_constant: float, kvectors: int | None = None, growth: int = 4
    ) -> None:
        super().__init__()
        self.constant, self.growth = coulomb_constant, growth
        self.largest_strain = _LARGEST_STRAIN
        self.kvectors = 0 if kvectors is None else kvectors
        self.first = -1
        # L with M⁻¹ = D⁻¹ − L Lᵀ on charge vectors that sum to zero, shape (N, 2k + extra columns)
        nothing = torch.zeros(0, dtype=torch.float32)
        self.register_buffer("lowered", nothing, persistent=False)
        self.register_buffer("cell", torch.eye(3, dtype=torch.float64), persistent=False)

    def fits(self, count: int, cell: torch.Tensor) -> bool:
        """Whether it suits ``count`` atoms in a cell, shape (3, 3), Å, preferably on the CPU."""
        if self.inverse.shape[0] != count:
            return False
        if torch.equal(self.cell, cell):
            return True
        one = torch.eye(3, dtype=cell.dtype, device=cell.device)
        return bool((torch.linalg.solve(self.cell, cell) - one).abs().max() < self.largest_strain)

    def make(
        self,
        diagonal: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
        groups: torch.Tensor | None = None,
        columns: torch.Tensor | None = None,
    ) -> None:
        """Build the preconditioner of a structure.

        Parameters
        ----------
        diagonal : torch.Tensor, float64, shape (N,), eV/e²
            Diagonal of A = K + diag(J); positive.
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å
            Preferably on the CPU.
        groups : torch.Tensor, optional, int64, shape (N,)
            Group of each atom, if the charges of groups are constrained.
        columns : torch.Tensor, optional, float64, shape (N, r)
            Additional columns of U with Λ = 1, see :meth:`.CoulombOperator.low_rank`.
        """
        with torch.no_grad():
            number = self.kvectors
            if number == 0:
                number = max(min(diagonal.shape[0] // 8, 200), 1)
            kvectors = lowest_kvectors(cell, number).to(positions.device)
            volume = torch.linalg.det(cell).abs()
            strength = 8.0 * math.pi * self.constant / volume / (kvectors * kvectors).sum(dim=-1)
            phase = positions @ kvectors.t()
            root = strength.sqrt()
            waves = torch.cat((torch.cos(phase) * root, torch.sin(phase) * root), dim=1)
            if columns is not None and columns.numel() > 0:
                waves = torch.cat((waves, columns), dim=1)
            self.take(diagonal, groups)
            waves, inverse = waves.to(torch.float32), self.inverse.to(torch.float32)
            scaled = waves * inverse.unsqueeze(-1)
            if groups is not None:
                means = group_sums(scaled, groups, self.weights) / self.weights.unsqueeze(-1)
                shifts = means.to(torch.float32).index_select(0, groups)
                scaled = torch.addcmul(scaled, inverse.unsqueeze(-1), shifts, value=-1.0)
            one = torch.eye(waves.shape[1], dtype=torch.float64, device=positions.device)
            factor = torch.linalg.cholesky((scaled.t() @ waves).to(torch.float64) + one)
            lower = torch.linalg.solve_triangular(factor, one, upper=False)
            self.lowered = scaled @ lower.t().to(torch.float32)
            if groups is None:  # the constraint is an additional column
                ones = self.inverse - self.lowered @ self.lowered.sum(dim=0)  # M⁻¹ 1
                column = (ones / ones.sum().sqrt()).to(torch.float32)
                self.lowered = torch.cat((self.lowered, column.unsqueeze(-1)), dim=1)
            self.cell, self.first = cell.clone(), -1

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """D⁻¹r − D⁻¹U(Λ⁻¹ + UᵀD⁻¹U)⁻¹UᵀD⁻¹r under the charge constraints; shape (N,)."""
        single = residual.to(torch.float32)
        seen = self.lowered.t() @ single
        correction = torch.addmv(single, self.lowered, seen, beta=0.0, alpha=-1.0)
        if self.groups.shape[0] > 0:
            return held_apart(residual, self.inverse, self.groups, self.weights) + correction
        return torch.addcmul(correction, self.inverse, residual)

    def report(self, iterations: int) -> None:
        """Record the number of iterations of a solve; too many cause a rebuild."""
        if self.first < 0:
            self.first = iterations
        elif iterations > self.first + self.growth:
            self.reset()

    def reset(self) -> None:
        """Rebuild before the next solve."""
        self.inverse = self.inverse[:0]


def lowest_kvectors(cell: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` shortest k-vectors, one of each ±k; shape (count, 3), 1/Å."""
    volume = float((2.0 * math.pi) ** 3 / torch.linalg.det(cell).abs())
    radius = 1.3 * math.pow(1.5 * count / math.pi * volume, 1.0 / 3.0)
    found = half_kvectors(cell, radius)
    while found.shape[0] < count:
        radius = 1.5 * radius
        found = half_kvectors(cell, radius)
    order = torch.argsort(torch.linalg.vector_norm(found, dim=-1))
    return found.index_select(0, order[:count])
