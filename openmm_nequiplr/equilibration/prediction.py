"""Initial guesses of charges out of those of previous steps."""

from __future__ import annotations

import math
from collections import deque

import torch

from ..errors import InputError, describe

#: Degree of the extrapolating polynomial.
DEFAULT_DEGREE = 3


class ChargePredictor:
    """Extrapolates charges over equal time steps by a polynomial through the last solutions.

    The solutions must be of the same atoms in the same order at equidistant times; after anything
    else (a new box, reordered atoms, a restored state) call :meth:`reset`. A changed number of
    atoms is noticed here.

    Parameters
    ----------
    degree : int
        Of the polynomial; 0 repeats the last solution. It takes degree + 1 solutions; with fewer at
        hand the degree is lower. High degrees amplify the solver's error, by up to 2^(degree + 1).
    """

    def __init__(self, degree: int = DEFAULT_DEGREE) -> None:
        if degree < 0:
            raise InputError(describe("degree", degree, "at least 0"))
        self._history: deque[torch.Tensor] = deque(maxlen=degree + 1)

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
        points = len(self._history)
        guess = torch.zeros_like(self._history[0])
        for back, solution in enumerate(self._history, start=1):
            guess = guess - (-1.0) ** back * math.comb(points, back) * solution
        return guess

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
        other = ChargePredictor((self._history.maxlen or 1) - 1)
        if self._history:
            other.accept(self._history[0])
        return other

    def reset(self) -> None:
        """Forget all solutions."""
        self._history.clear()
