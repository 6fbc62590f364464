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
    """What the iteration carries.

    Charges, the residual P r with r = −(A Q + χ), both of shape (N,), and the mean of r, which is
    the Lagrange multiplier.
    """

    charges: torch.Tensor
    residual: torch.Tensor
    multiplier: torch.Tensor


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
            ones = preconditioner.ones_solved
            self._ones_shares = ones / ones.sum()

    def _product(self, charges: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self._operator.potential(charges), self._hardness, charges)

    def _precondition(self, residual: torch.Tensor) -> torch.Tensor:
        """M⁻¹(r − μ1) with the μ that makes its sum zero."""
        solved = self._preconditioner.apply(residual)
        return _neutral(torch.addcmul(solved, self._ones_shares, solved.sum(), value=-1.0))

    @torch.no_grad()
    def solve(
        self,
        electronegativity: torch.Tensor,
        total_charge: torch.Tensor,
        guess: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
    ) -> Equilibration:
        """Charges at the minimum.

        Parameters
        ----------
        electronegativity : torch.Tensor, float64, shape (N,), eV/e
        total_charge : torch.Tensor, float64, scalar, e
        guess : torch.Tensor, optional, float64, shape (N,), e
            Shifted to the total charge before use, and not used where uniform charges are nearer.
        image : torch.Tensor, optional, float64, shape (N,), eV/e
            A times the guess, if that is known; the guess then has to have the total charge.

        Raises
        ------
        ConvergenceError
            If the iterations do not suffice, or if A is not positive definite or not finite.
        InputError
            If the guess has another shape.
        """
        chi = electronegativity.detach()
        total = total_charge.detach().reshape(())
        charges = torch.ones_like(chi) * (total / chi.shape[0])
        state = _state(charges, chi if not bool(total) else chi + self._product(charges))
        start = _size(state)
        goal = self._tolerance * start
        if not math.isfinite(goal):
            raise _failed("the electronegativities or the Coulomb operator are not finite")
        if guess is not None:
            if guess.shape != chi.shape:
                raise InputError(describe("guess", tuple(guess.shape), f"shape {tuple(chi.shape)}"))
            if image is None:
                guess = guess.detach() + (total - guess.sum()) / chi.shape[0]
                image = self._product(guess)
            guessed = _state(guess, chi + image)
            if _size(guessed) < start:
                state = guessed
        iterations = self._iterate(state, goal)
        residual = float(state.residual.abs().max())
        return Equilibration(state.charges, state.multiplier.reshape(1), iterations, residual)

    def _iterate(self, state: _State, goal: float) -> int:
        """Run conjugate gradients until ‖P r‖ ≤ ``goal``; return the number of iterations."""
        direction, before = state.residual, 1.0
        for iteration in range(self._max_iterations + 1):
            size = _size(state)
            if size <= goal:
                return iteration
            if not math.isfinite(size) or iteration == self._max_iterations:
                break
            solved = self._precondition(state.residual)
            product = float(state.residual @ solved)
            if iteration:
                solved = torch.add(solved, direction, alpha=product / before)
            direction, before = solved, product
            image = self._product(direction)
            curvature = float(direction @ image)
            if not (curvature > 0.0 and product > 0.0):
                raise _failed("the matrix or its preconditioner is not positive definite")
            length = product / curvature
            mean = image.mean()
            state.charges = torch.add(state.charges, direction, alpha=length)
            state.residual = torch.sub(state.residual, image.sub_(mean), alpha=length)
            state.multiplier = torch.sub(state.multiplier, mean, alpha=length)
        raise _failed(
            f"residual {size:.2e} eV/e after {self._max_iterations} iterations, {goal:.2e} wanted; "
            f"raise max_iterations (now {self._max_iterations}), loosen the relative tolerance "
            f"(charge_tolerance, now {self._tolerance:g}), or tighten the accuracy of the Coulomb "
            "sum if the tolerance lies far below it"
        )


def _state(charges: torch.Tensor, slope: torch.Tensor) -> _State:
    """The state at charges with the slope A Q + χ."""
    mean = slope.mean()
    return _State(charges, mean - slope, -mean)


def _size(state: _State) -> float:
    return float(torch.linalg.vector_norm(state.residual))


def _neutral(vector: torch.Tensor) -> torch.Tensor:
    """P v: the part that sums to zero."""
    return vector - vector.mean()


def _failed(reason: str) -> ConvergenceError:
    return ConvergenceError(
        f"charge equilibration failed: {reason} (atoms on top of one another and a hardness near "
        "zero are other usual causes)"
    )
