"""Initial guesses of charges out of those of previous steps."""

from __future__ import annotations

from collections import deque

import torch

from ..errors import InputError, describe

#: Differences that the extrapolation takes in.
DEFAULT_DEGREE = 3
# Relative weight with which it stays a polynomial where the last step says nothing else.
_PRIOR = 1e-6


class ChargePredictor:
    """Extrapolates charges over equal time steps by the differences of the last solutions.

    The guess is x + Σ_k a_k ∇ᵏx, with the backward differences ∇ᵏ up to ``degree``. With a_k = 1 it
    is the polynomial through the last solutions, which is right for smooth motion; a thermostat's
    random kicks call for less. The a_k are those that would have predicted the last solution best,
    by least squares over the atoms.

    The solutions must be of the same atoms in the same order at equidistant times; after anything
    else (a new box, reordered atoms, a restored state) call :meth:`reset`. A changed number of
    atoms is noticed here.

    Parameters
    ----------
    degree : int
        0 repeats the last solution. The coefficients are fitted from degree + 2 solutions on; with
        fewer at hand the guess is the polynomial through them.
    """

    def __init__(self, degree: int = DEFAULT_DEGREE) -> None:
        if degree < 0:
            raise InputError(describe("degree", degree, "at least 0"))
        self._history: deque[torch.Tensor] = deque(maxlen=degree + 2)

    def __len__(self) -> int:
        """Number of solutions at hand."""
        return len(self._history)

    def predict(self, count: int | None = None) -> torch.Tensor | None:
        """The guess for the next step, shape (N,), e, or None when there is nothing to go by.

        Parameters
        ----------
        count : int, optional
            Number of atoms of the next structure; if it is not that of the history, the history is
            dropped.
        """
        if not self._history:
            return None
        if count is not None and self._history[0].shape[0] != count:
            self.reset()
            return None
        solutions = torch.stack(tuple(self._history))
        most = (self._history.maxlen or 2) - 2
        differences = _differences(solutions, min(len(solutions) - 1, most))
        if len(solutions) < most + 2 or not most:
            return solutions[0] + differences.sum(dim=0)
        before = _differences(solutions[1:], most)
        missed = solutions[0] - solutions[1] - before.sum(dim=0)
        gram = before @ before.T
        gram.diagonal().mul_(1.0 + _PRIOR).add_(torch.finfo(gram.dtype).tiny)
        weights = 1.0 + torch.linalg.solve(gram, before @ missed)
        if not bool(torch.isfinite(weights).all()):
            return solutions[0]
        return solutions[0] + weights @ differences

    def accept(self, solution: torch.Tensor) -> None:
        """Take up the charges of a step, shape (N,), e.

        Charges that are not finite, or of another number of atoms, drop the history.
        """
        charges = solution.detach()
        if self._history and self._history[0].shape != charges.shape:
            self.reset()
        if not bool(torch.isfinite(charges).all()):
            self.reset()
            return
        self._history.appendleft(charges.clone())

    def last_only(self) -> ChargePredictor:
        """Another predictor that knows the last solution alone."""
        other = ChargePredictor((self._history.maxlen or 2) - 2)
        if self._history:
            other.accept(self._history[0])
        return other

    def reset(self) -> None:
        """Forget all solutions."""
        self._history.clear()


def _differences(solutions: torch.Tensor, most: int) -> torch.Tensor:
    """Backward differences ∇ to ∇^most of solutions, newest first, at the newest."""
    rows = []
    for _ in range(most):
        solutions = solutions[:-1] - solutions[1:]
        rows.append(solutions[0])
    return torch.stack(rows) if rows else solutions.new_zeros(0, solutions.shape[-1])
