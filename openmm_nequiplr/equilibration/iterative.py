"""Charge equilibration by projected, preconditioned conjugate gradients.

A = K + diag(J) is positive definite on charge vectors that sum to zero, but not always on the full
space. The iteration (Hestenes and Stiefel 1952, doi:10.6028/jres.049.044) therefore stays in that
subspace; P is the projector onto it. The preconditioner M is inverted under the same constraint:
z = M⁻¹(r − μ1) with the μ for which Σz = 0 (Gould, Hribar, Nocedal 2001,
doi:10.1137/S1064827598345667). If the charges of groups of atoms are constrained, P and the
constraint on the preconditioner are those of the groups (:mod:`.constraints`).
"""

# TorchScript compiles IterativeSolver and reads its annotations: no postponed ones here
import math
from typing import Any, NamedTuple

import torch

from ..errors import ConvergenceError, InputError, describe
from .constraints import group_means, group_sizes, group_sums
from .dense import Equilibration, failed
from .preconditioning import JacobiPreconditioner, positive_diagonal

#: Convergence criterion: ‖P r‖₂ relative to that of uniform charges.
DEFAULT_TOLERANCE = 1e-6
DEFAULT_MAX_ITERATIONS = 100
#: ‖P r‖₂ that always suffices, eV/e: uniform charges may be exact, and a guess never is.
SMALLEST_RESIDUAL = 1e-12


class IterativeSolver(torch.nn.Module):
    """Conjugate-gradient charge solver that needs only products K q; not differentiable.

    Parameters
    ----------
    operator : CoulombOperator
        Must be a module if TorchScript compiles the solver.
    hardness : torch.Tensor, float64, shape (N,), eV/e²
        J > 0.
    tolerance : float
        The iteration stops when ‖P(A Q + χ)‖₂ is at most this times its value for uniform charges,
        or :data:`SMALLEST_RESIDUAL`.
    max_iterations : int
    preconditioner : torch.nn.Module, optional
        One of :mod:`.preconditioning`; by default the diagonal of A.
    groups : torch.Tensor, optional, int64, shape (N,)
        Group of each atom, from 0 to F − 1, if the charges of F groups are constrained. The
        preconditioner must have the same groups.
    """

    hardness: torch.Tensor
    groups: torch.Tensor
    sizes: torch.Tensor

    def __init__(
        self,
        operator: Any,
        hardness: torch.Tensor,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        max_iterations: int = DEFAULT_MAX_ITERATIONS,
        preconditioner: Any = None,
        groups: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < tolerance < 1.0:
            raise InputError(describe("tolerance", tolerance, "a number between 0 and 1"))
        if max_iterations < 1:
            raise InputError(describe("max_iterations", max_iterations, "at least 1"))
        self.operator = operator
        self.tolerance, self.max_iterations = float(tolerance), int(max_iterations)
        self.register_buffer("hardness", hardness.detach(), persistent=False)
        if preconditioner is None:
            diagonal = positive_diagonal(operator.diagonal().detach(), hardness.detach())
            preconditioner = JacobiPreconditioner(diagonal, groups)
        self.preconditioner = preconditioner
        #: Iterations on a GPU before the first convergence check, which synchronises the device.
        self.unwatched = 0
        #: Whether to do just these iterations and leave the check to the caller: :func:`judged`.
        self.deferred = False
        nothing = torch.zeros(0, dtype=torch.float64)
        self.register_buffer("groups", nothing.to(torch.int64), persistent=False)
        self.register_buffer("sizes", nothing, persistent=False)
        self.hold(groups)

    def hold(self, groups: torch.Tensor | None) -> None:
        """Constrain the charges of groups, int64, shape (N,), or the total charge if None."""
        if groups is None:
            self.groups, self.sizes = self.groups[:0], self.sizes[:0]
        else:
            self.groups, self.sizes = groups, group_sizes(groups)

    def _grouped(self) -> bool:
        return self.groups.shape[0] > 0

    def _mean(self, vector: torch.Tensor) -> torch.Tensor:
        """The mean, a scalar, or for each atom the mean over its group, shape (N,)."""
        if self._grouped():
            return group_means(vector, self.groups, self.sizes)
        return vector.mean()

    def _neutral(self, vector: torch.Tensor) -> torch.Tensor:
        """P v, the part of v that sums to zero."""
        return vector - self._mean(vector)

    def _product(self, charges: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.operator.potential(charges), self.hardness, charges)

    @torch.jit.unused
    def solve(
        self,
        electronegativity: torch.Tensor,
        total_charge: torch.Tensor,
        guess: torch.Tensor | None = None,
    ) -> Equilibration:
        """Call :meth:`forward` and raise an error if it fails.

        Raises
        ------
        ConvergenceError
            If the iteration does not converge, or if A is not positive definite or not finite.
        InputError
            If the guess has another shape.
        """
        if guess is not None and guess.shape != electronegativity.shape:
            expected = f"shape {tuple(electronegativity.shape)}"
            raise InputError(describe("guess", tuple(guess.shape), expected))
        result = self(electronegativity, total_charge, guess)
        if result.failure:
            raise ConvergenceError(result.failure)
        return result

    def forward(
        self,
        electronegativity: torch.Tensor,
        total_charge: torch.Tensor,
        guess: torch.Tensor | None,
    ) -> Equilibration:
        """Equilibrated charges.

        Parameters
        ----------
        electronegativity : torch.Tensor, float64, shape (N,), eV/e
        total_charge : torch.Tensor, float64, scalar or shape (F,), e
            Charge of the structure, or of each group.
        guess : torch.Tensor or None, float64, shape (N,), e
            Initial guess, shifted to satisfy the constraints. On the CPU it is ignored if uniform
            charges have a smaller residual.
        """
        with torch.no_grad():
            chi = electronegativity
            # on a GPU the guess is used unchecked, as the check would synchronise the device
            trusted = guess is not None and chi.is_cuda
            held = total_charge.is_cuda or bool((total_charge != 0.0).any())
            charges, gradient = chi, chi
            field: torch.Tensor | None = None
            if held or not trusted:
                charges = self._uniform(chi, total_charge)
            if held:
                gradient, field = chi + self._product(charges), self.operator.field
            start = torch.linalg.vector_norm(self._neutral(gradient))
            if guess is not None:
                shifted = self._shifted(guess, total_charge) if held else self._neutral(guess)
                guessed = chi + self._product(shifted)
                if trusted or bool(torch.linalg.vector_norm(self._neutral(guessed)) < start):
                    charges, gradient, field = shifted, guessed, self.operator.field
            return self._iterate(charges, gradient, field, start)

    def _uniform(self, like: torch.Tensor, total_charge: torch.Tensor) -> torch.Tensor:
        if self._grouped():
            return self._shifted(torch.zeros_like(like), total_charge)
        return torch.full_like(like, float(total_charge) / like.shape[0])

    def _shifted(self, guess: torch.Tensor, total_charge: torch.Tensor) -> torch.Tensor:
        """The guess, shifted uniformly (in each group) to satisfy the constraints."""
        if self._grouped():
            missing = (total_charge - group_sums(guess, self.groups, self.sizes)) / self.sizes
            return guess + missing.index_select(0, self.groups)
        return guess + (total_charge.reshape([]) / float(guess.shape[0]) - guess.mean())

    def _iterate(
        self,
        charges: torch.Tensor,
        gradient: torch.Tensor,
        field: torch.Tensor | None,
        start: torch.Tensor,
    ) -> Equilibration:
        """Conjugate gradients from initial charges with the gradient A Q + χ.

        ``field`` is the field of these charges, None if they are zero. ``start`` is ‖P r‖ of
        uniform charges, to which the tolerance is relative. Scalars stay on the device until
        :func:`judged` reads them; iterations after convergence do no harm.
        """
        multiplier = self._mean(gradient)  # minus the Lagrange multiplier of the charges
        residual = multiplier - gradient
        direction, before = residual, start
        # since the last check: r·z and d·A d of each iteration, and ‖P r‖ after it
        signs: list[torch.Tensor] = []
        sizes: list[torch.Tensor] = [torch.linalg.vector_norm(residual)]
        iteration, seen = 0, Seen(0, True, 0.0, 0.0, 0.0)
        record = residual[:0]
        tiny = 1e-300  # smallest divisor
        while True:
            if iteration >= min(self.unwatched, self.max_iterations):
                latest = _recorded(start, residual, signs, sizes)
                if self.deferred:
                    record, seen = latest, Seen(iteration, True, 0.0, 0.0, 0.0)
                    break
                seen = judged(iteration, self.tolerance, len(sizes), _numbers(latest))
                good = seen.positive and math.isfinite(seen.size)
                if not good or seen.size <= seen.goal or iteration >= self.max_iterations:
                    break
                signs, sizes = signs[:0], sizes[:0]
            solved = self._neutral(self.preconditioner(residual))
            product = residual @ solved
            if iteration == 0:
                direction = solved
            else:
                direction = torch.addcmul(solved, direction, product / before.clamp(min=tiny))
            before = product
            image = self._product(direction)
            curvature = direction @ image
            length = product / curvature.clamp(min=tiny)
            charges = torch.addcmul(charges, direction, length)
            more = self.operator.field
            if more.numel() > 0:
                field = length * more if field is None else torch.addcmul(field, more, length)
            gradient = torch.addcmul(gradient, image, length)
            multiplier = self._mean(gradient)
            residual = multiplier - gradient
            signs.extend([product, curvature])
            sizes.append(torch.linalg.vector_norm(residual))
            iteration += 1
        failure = ""
        if not (seen.positive and seen.size <= seen.goal):
            failure = self._failure(seen.positive, seen.size, seen.goal, iteration)
        if field is None:
            field = torch.zeros_like(self.operator.field)
        if self._grouped():
            multiplier = group_sums(multiplier, self.groups, self.sizes) / self.sizes
        return Equilibration(
            charges,
            -multiplier.reshape(-1),
            seen.iterations,
            seen.largest,
            failure,
            gradient,
            field,
            record,
        )

    def _failure(self, positive: bool, size: float, goal: float, iterations: int) -> str:
        reason = "the electronegativities or the Coulomb operator are not finite"
        if not positive:
            reason = "the matrix or its preconditioner is not positive definite"
        elif math.isfinite(size) and math.isfinite(goal):
            reason = (
                f"residual {size} eV/e after {iterations} iterations, {goal} required; raise "
                f"max_iterations (now {self.max_iterations}) or loosen the relative tolerance "
                f"(charge_tolerance, now {self.tolerance}); tighten the accuracy of the Coulomb "
                "sum if the tolerance is far below it"
            )
        return failed(reason)


class Seen(NamedTuple):
    """State of a solve at a convergence check.

    Parameters
    ----------
    iterations : int
        Iterations needed if converged, else iterations done.
    positive : bool
        Whether the matrix and its preconditioner were positive definite along all directions.
    size, goal, largest : float, eV/e
        ‖P r‖, the value required of it, and the largest residual of an atom.
    """

    iterations: int
    positive: bool
    size: float
    goal: float
    largest: float


def _recorded(
    start: torch.Tensor,
    residual: torch.Tensor,
    signs: list[torch.Tensor],
    sizes: list[torch.Tensor],
) -> torch.Tensor:
    """Numbers that decide on the convergence of the iterations since the last check."""
    both = [start, torch.linalg.vector_norm(residual, math.inf)] + signs + sizes  # noqa: RUF005 (TorchScript)
    return torch.stack(both)


def _numbers(record: torch.Tensor) -> list[float]:
    numbers: list[float] = record.tolist()
    return numbers


def judged(
    iteration: int,
    tolerance: float,
    count: int,
    numbers: list[float],
    smallest: float = SMALLEST_RESIDUAL,
) -> Seen:
    """Convergence check of the iterations since the last one, up to ``iteration``.

    Parameters
    ----------
    iteration : int
    tolerance : float
    count : int
        Number of residuals ‖P r‖ among the numbers.
    numbers : list of float
        ‖P r‖ of uniform charges, the largest residual of an atom, r·z and d·A d of each iteration,
        and ‖P r‖ after each, with the initial one if this is the first check.
    smallest : float, eV/e
        Residual that suffices whatever the tolerance.
    """
    wanted = max(tolerance * numbers[0], smallest)
    largest, signs = numbers[1], len(numbers) - 2 - count
    ends, begin = numbers[len(numbers) - count :], 2
    positive, first = True, count - signs // 2  # 1 with the initial residual
    for k in range(count):
        number = iteration + 1 - count + k
        if k >= first:
            at = begin + 2 * (k - first)
            positive = positive and numbers[at] > 0.0 and numbers[at + 1] > 0.0
        if not positive or ends[k] <= wanted:
            return Seen(number, positive, ends[k], wanted, largest)
    return Seen(iteration, positive, ends[count - 1], wanted, largest)
