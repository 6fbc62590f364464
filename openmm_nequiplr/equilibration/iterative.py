"""Charge equilibration by projected, preconditioned conjugate gradients.

A = K + diag(J) is positive definite on the charge vectors that sum to zero, but need not be on the
full space, so the iteration stays on that subspace: P is the projector onto it. A preconditioner M
is applied with the same constraint: z = M⁻¹(r − μ1) with the μ that makes Σz = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..electrostatics import CoulombOperator
from ..errors import ConvergenceError, InputError, describe
from .dense import Equilibration
from .preconditioning import JacobiPreconditioner, Preconditioner, positive_diagonal

#: ‖P r‖₂ relative to that of uniform charges at which a solve stops.
DEFAULT_TOLERANCE = 1e-6
DEFAULT_MAX_ITERATIONS = 100


@dataclass
class _State:
    """What the iteration carries: charges, A Q + χ and the search direction, of shape (N,)."""

    charges: torch.Tensor
    slope: torch.Tensor
    direction: torch.Tensor
    product: float


class IterativeSolver:
    """Solves for charges with products K q alone; no gradient.

    Parameters
    ----------
    operator : CoulombOperator
    hardness : torch.Tensor, float64, shape (N,), eV/e²
        J > 0.
    tolerance : float
        A solve stops when ‖P(A Q + χ)‖₂ is at most this times its value for uniform charges.
    max_iterations : int
    preconditioner : Preconditioner, optional
        By default the diagonal of A.
    """

    def __init__(
        self,
        operator: CoulombOperator,
        hardness: torch.Tensor,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        max_iterations: int = DEFAULT_MAX_ITERATIONS,
        preconditioner: Preconditioner | None = None,
    ) -> None:
        if not 0.0 < tolerance < 1.0:
            raise InputError(describe("tolerance", tolerance, "a number between 0 and 1"))
        if max_iterations < 1:
            raise InputError(describe("max_iterations", max_iterations, "at least 1"))
        self._operator, self._hardness = operator, hardness.detach()
        self._tolerance, self._max_iterations = tolerance, max_iterations
        with torch.no_grad():
            if preconditioner is None:
                diagonal = positive_diagonal(operator, self._hardness)
                preconditioner = JacobiPreconditioner(diagonal)
            self._preconditioner = preconditioner

    def _product(self, charges: torch.Tensor) -> torch.Tensor:
        return self._operator.potential(charges) + self._hardness * charges

    def _precondition(self, residual: torch.Tensor) -> torch.Tensor:
        """M⁻¹(r − μ1) with the μ that makes its sum zero."""
        solved = self._preconditioner.apply(residual)
        ones = self._preconditioner.ones_solved
        return _neutral(solved - solved.sum() / ones.sum() * ones)

    @torch.no_grad()
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
        guess : torch.Tensor, optional, float64, shape (N,), e
            Shifted to the total charge before use, and not used where uniform charges are nearer.

        Raises
        ------
        ConvergenceError
            If the iterations do not suffice, or if A is not positive definite or not finite.
        InputError
            If the guess has another shape.
        """
        chi = electronegativity.detach()
        total = total_charge.detach().reshape(())
        uniform = torch.ones_like(chi) * (total / chi.shape[0])
        cold = chi if not bool(total) else chi + self._product(uniform)
        start = float(torch.linalg.vector_norm(_neutral(cold)))
        goal = self._tolerance * start
        if not math.isfinite(goal):
            raise _failed("the electronegativities or the Coulomb operator are not finite")
        charges, slope = uniform, cold
        if guess is not None:
            if guess.shape != chi.shape:
                raise InputError(describe("guess", tuple(guess.shape), f"shape {tuple(chi.shape)}"))
            guess = guess.detach() + (total - guess.sum()) / chi.shape[0]
            guessed = chi + self._product(guess)
            if float(torch.linalg.vector_norm(_neutral(guessed))) < start:
                charges, slope = guess, guessed
        state = _State(charges, slope, torch.zeros_like(chi), 0.0)
        iterations = self._iterate(state, goal)
        multiplier = -state.slope.mean().reshape(1)
        residual = float((state.slope + multiplier).abs().max())
        return Equilibration(state.charges, multiplier, iterations, residual)

    def _iterate(self, state: _State, goal: float) -> int:
        """Run conjugate gradients until ‖P r‖ ≤ ``goal``; return the number of iterations."""
        for iteration in range(self._max_iterations + 1):
            residual = -_neutral(state.slope)
            size = float(torch.linalg.vector_norm(residual))
            if size <= goal:
                return iteration
            if not math.isfinite(size) or iteration == self._max_iterations:
                break
            solved = self._precondition(residual)
            product = float(residual @ solved)
            ratio = product / state.product if iteration else 0.0
            state.direction = solved + ratio * state.direction
            state.product = product
            image = self._product(state.direction)
            curvature = float(state.direction @ image)
            if not (curvature > 0.0 and product > 0.0):
                raise _failed("the matrix or its preconditioner is not positive definite")
            state.charges = state.charges + product / curvature * state.direction
            state.slope = state.slope + product / curvature * image
        raise _failed(
            f"residual {size:.2e} eV/e after {self._max_iterations} iterations, {goal:.2e} wanted; "
            f"raise max_iterations (now {self._max_iterations}), loosen the relative tolerance "
            f"(charge_tolerance, now {self._tolerance:g}), or tighten the accuracy of the Coulomb "
            "sum if the tolerance lies far below it"
        )


def _neutral(vector: torch.Tensor) -> torch.Tensor:
    """P v: the part that sums to zero."""
    return vector - vector.mean()


def _failed(reason: str) -> ConvergenceError:
    return ConvergenceError(
        f"charge equilibration failed: {reason} (atoms on top of one another and a hardness near "
        "zero are other usual causes)"
    )
