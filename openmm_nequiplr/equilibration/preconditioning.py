"""Approximations of A = K + diag(J) that are easy to invert.

In large periodic cells the long waves, whose Coulomb energy goes as 1/k², make plain conjugate
gradients slow. M = D + U Λ Uᵀ, with U the cosines and sines of the lowest reciprocal vectors and
Λ = 8π k_e/(V k²), takes care of them; its inverse follows from the Woodbury identity.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from ..electrostatics import CoulombOperator
from ..errors import InputError, describe
from .waves import Waves


class Preconditioner(Protocol):
    """An approximation M of A that is easy to invert."""

    @property
    def ones_solved(self) -> torch.Tensor:
        """M⁻¹ 1, shape (N,), which keeps sums at zero."""
        ...

    def apply(self, residual: torch.Tensor) -> torch.Tensor:
        """M⁻¹ r for r of shape (N,), positive definite and symmetric."""
        ...


class JacobiPreconditioner:
    """The diagonal of A.

    Parameters
    ----------
    diagonal : torch.Tensor, float64, shape (N,), eV/e²
        Of A = K + diag(J); positive.
    """

    def __init__(self, diagonal: torch.Tensor) -> None:
        if not bool((diagonal > 0).all()):
            raise InputError(describe("diagonal", float(diagonal.min()), "positive elements"))
        self._inverse = 1.0 / diagonal.detach()

    @property
    def ones_solved(self) -> torch.Tensor:
        """D⁻¹ 1, shape (N,)."""
        return self._inverse

    def apply(self, residual: torch.Tensor) -> torch.Tensor:
        """D⁻¹ r, shape (N,)."""
        return self._inverse * residual


def positive_diagonal(operator: CoulombOperator, hardness: torch.Tensor) -> torch.Tensor:
    """The diagonal of A = K + diag(J) for a preconditioner, no less than J; shape (N,), eV/e².

    That of K may be negative in cells that are small against the charges, where A is positive
    definite only on charge vectors that sum to zero.
    """
    return (operator.diagonal().detach().clamp(min=0.0) + hardness.detach()).contiguous()


class WoodburyPreconditioner:
    """D + U Λ Uᵀ with the lowest reciprocal vectors; serves while the atoms move little.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    diagonal : torch.Tensor, float64, shape (N,), eV/e²
        Of A = K + diag(J); positive.
    coulomb_constant : float, eV Å/e²
    waves : int, optional
        Number of reciprocal vectors, one of each ±k; by default :func:`default_waves`.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        diagonal: torch.Tensor,
        coulomb_constant: float,
        waves: int | None = None,
    ) -> None:
        positions, cell = positions.detach(), cell.detach()
        self._inverse = 1.0 / diagonal.detach()
        waves = default_waves(positions.shape[0]) if waves is None else waves
        k_vectors = lowest_waves(cell, waves)
        volume = float(torch.linalg.det(cell).abs())
        strength = 8.0 * math.pi * coulomb_constant / volume / (k_vectors**2).sum(dim=-1)
        phase = positions @ k_vectors.T
        self._waves = Waves(phase)
        scale = torch.cat((strength, strength)).sqrt().to(torch.float32)
        wave = self._waves.matrix() * scale
        scaled = wave * self._inverse.to(torch.float32).unsqueeze(-1)
        capacitance = (scaled.T @ wave).to(torch.float64)
        capacitance.diagonal().add_(1.0)
        factor = torch.linalg.cholesky(capacitance)
        middle = torch.cholesky_inverse(factor).to(torch.float32)
        self._middle = scale.unsqueeze(-1) * middle * scale
        #: M⁻¹ 1, shape (N,).
        self.ones_solved = self.apply(torch.ones_like(self._inverse))

    def apply(self, residual: torch.Tensor) -> torch.Tensor:
        """D⁻¹r − D⁻¹U(1 + UᵀD⁻¹U)⁻¹UᵀD⁻¹r, shape (N,)."""
        coefficients = self._middle @ self._waves.project(self._inverse, residual)
        return self._waves.remove(self._inverse, residual, coefficients)


def default_waves(count: int) -> int:
    """Reciprocal vectors of the Woodbury preconditioner for N atoms."""
    return max(min(count // 8, 200), 1)


def lowest_waves(cell: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` shortest reciprocal vectors, one of each ±k; shape (count, 3), 1/Å."""
    reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).T
    volume = torch.linalg.det(reciprocal).abs()
    radius = 1.3 * (2.0 * count * 3.0 / (4.0 * math.pi) * volume) ** (1.0 / 3.0)
    lengths = torch.linalg.vector_norm(cell, dim=-1)
    while True:
        limits = torch.floor(radius * lengths / (2.0 * math.pi)).long().tolist()
        axes = [torch.arange(-n, n + 1, dtype=cell.dtype, device=cell.device) for n in limits]
        grid = torch.cartesian_prod(*axes)
        vectors = grid[grid.shape[0] // 2 + 1 :] @ reciprocal
        length = torch.linalg.vector_norm(vectors, dim=-1)
        inside = length <= radius
        if int(inside.sum()) >= count:
            order = torch.argsort(length[inside])
            return vectors[inside][order[:count]]
        radius = 1.5 * radius


class ReusedPreconditioner:
    """Keeps a Woodbury preconditioner over steps, and makes a new one when it no longer fits.

    It is made anew for another number of atoms, after a strain of two per cent, and once a solve
    took ``growth`` iterations more than the first one with it.

    Parameters
    ----------
    coulomb_constant : float, eV Å/e²
    waves : int, optional
        As for :class:`WoodburyPreconditioner`.
    growth : int
    """

    def __init__(self, coulomb_constant: float, waves: int | None = None, growth: int = 4) -> None:
        self._constant, self._waves, self._growth = coulomb_constant, waves, growth
        self.reset()

    def reset(self) -> None:
        """Forget the preconditioner."""
        self._made: WoodburyPreconditioner | None = None
        self._cell: torch.Tensor | None = None
        self._count = 0
        self._first: int | None = None

    def get(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        operator: CoulombOperator,
        hardness: torch.Tensor,
    ) -> WoodburyPreconditioner:
        """The preconditioner for a structure.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å
        operator : CoulombOperator
        hardness : torch.Tensor, float64, shape (N,), eV/e²
        """
        if self._made is not None and self._count == positions.shape[0]:
            assert self._cell is not None
            if torch.equal(self._cell, cell):
                return self._made
            strain = torch.linalg.solve(self._cell, cell.detach())
            strain.diagonal().sub_(1.0)
            if bool(strain.abs().max() < 0.02):
                return self._made
        self.reset()
        diagonal = positive_diagonal(operator, hardness)
        self._made = WoodburyPreconditioner(positions, cell, diagonal, self._constant, self._waves)
        self._cell, self._count = cell.detach().clone(), positions.shape[0]
        return self._made

    def report(self, iterations: int) -> None:
        """Tell how many iterations a solve with it took."""
        if self._first is None:
            self._first = iterations
        elif iterations > self._first + self._growth:
            self.reset()
