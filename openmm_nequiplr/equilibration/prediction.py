"""Initial guesses of charges out of those of previous steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..errors import InputError, describe
from ..jit import FEWEST_ATOMS, compiled

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
        self._degree = degree
        self._count = 0
        self._last: torch.Tensor | None = None
        # ∇ to ∇^degree at the last solution and at the one before, shape (degree, N)
        self._differences: torch.Tensor | None = None
        self._before: torch.Tensor | None = None

    def __len__(self) -> int:
        """Number of solutions at hand."""
        return self._count

    def predict(self, count: int | None = None) -> torch.Tensor | None:
        """The guess for the next step, shape (N,), e, or None when there is nothing to go by.

        Parameters
        ----------
        count : int, optional
            Number of atoms of the next structure; if it is not that of the history, the history is
            dropped.
        """
        if self._last is not None and count is not None and self._last.shape[0] != count:
            self.reset()
        if self._last is None:
            return None
        if self._differences is None:
            return self._last
        if self._before is None or self._count < self._degree + 2:
            return self._last + self._differences[: self._count - 1].sum(dim=0)
        history = self._last, self._differences, self._before
        loop = _loop(extrapolate, self._last)
        if loop is None:
            return extrapolate_slowly(*history)
        return torch.from_numpy(loop(*(array.numpy() for array in history)))

    def accept(self, solution: torch.Tensor) -> None:
        """Take up the charges of a step, shape (N,), e.

        Charges that are not finite, or of another number of atoms, drop the history.
        """
        charges = solution.detach()
        if self._last is not None and self._last.shape != charges.shape:
            self.reset()
        if not math.isfinite(float(charges.sum())):
            self.reset()
            return
        if self._last is not None and self._degree:
            before = self._differences
            if before is None:
                before = charges.new_zeros(self._degree, charges.shape[0])
            loop = _loop(backward_differences, charges)
            if loop is None:
                rows = backward_differences_slowly(charges, self._last, before, self._count)
            else:
                arrays = charges.numpy(), self._last.numpy(), before.numpy()
                rows = torch.from_numpy(loop(*arrays, self._count))
            self._before, self._differences = before, rows
        self._last = charges.clone()
        self._count = min(self._count + 1, self._degree + 2)

    def last_only(self) -> ChargePredictor:
        """Another predictor that knows the last solution alone."""
        other = ChargePredictor(self._degree)
        if self._last is not None:
            other.accept(self._last)
        return other

    def reset(self) -> None:
        """Forget all solutions."""
        self._count = 0
        self._last = self._differences = self._before = None


def _loop(function: Callable[..., Any], charges: torch.Tensor) -> Callable[..., Any] | None:
    """The function compiled, where that pays."""
    if charges.device.type != "cpu" or charges.shape[0] < FEWEST_ATOMS:
        return None
    return compiled(function)


def extrapolate_slowly(
    last: torch.Tensor, differences: torch.Tensor, before: torch.Tensor
) -> torch.Tensor:
    """x + Σ_k a_k ∇ᵏx with the a_k that would have predicted x best.

    Parameters
    ----------
    last : torch.Tensor, shape (N,), e
        x.
    differences, before : torch.Tensor, shape (degree, N), e
        ∇x to ∇^degree x, and those of the solution before x.
    """
    missed = differences[0] - before.sum(dim=0)
    gram = before @ before.T
    gram.diagonal().mul_(1.0 + _PRIOR).add_(torch.finfo(gram.dtype).tiny)
    weights = 1.0 + torch.linalg.solve(gram, before @ missed)
    if not bool(torch.isfinite(weights).all()):
        return last
    return torch.addmv(last, differences.T, weights)


def extrapolate(last, differences, before):
    """:func:`extrapolate_slowly` as loops over NumPy arrays, to be compiled."""
    degree, count = differences.shape
    gram, right = np.zeros((degree, degree)), np.zeros(degree)
    for i in range(count):
        missed = differences[0, i]
        for k in range(degree):
            missed -= before[k, i]
        for k in range(degree):
            right[k] += before[k, i] * missed
            for m in range(k + 1):
                gram[k, m] += before[k, i] * before[m, i]
    for k in range(degree):
        gram[k, k] = gram[k, k] * (1.0 + _PRIOR) + np.finfo(np.float64).tiny
        for m in range(k):
            gram[m, k] = gram[k, m]
    guess = last.copy()
    if not (np.isfinite(gram).all() and np.isfinite(right).all()):
        return guess
    weights = 1.0 + np.linalg.solve(gram, right)
    if np.isfinite(weights).all():
        for k in range(degree):
            for i in range(count):
                guess[i] += weights[k] * differences[k, i]
    return guess


def backward_differences_slowly(
    charges: torch.Tensor, last: torch.Tensor, before: torch.Tensor, count: int
) -> torch.Tensor:
    """∇ to ∇^degree of ``charges``, shape (degree, N), out of the last ones and their differences.

    Zero from row ``count``, the number of earlier solutions, on.
    """
    rows = torch.zeros_like(before)
    rows[0] = charges - last
    for k in range(1, min(count, len(rows))):
        rows[k] = rows[k - 1] - before[k - 1]
    return rows


def backward_differences(charges, last, before, count):
    """:func:`backward_differences_slowly` as loops over NumPy arrays, to be compiled."""
    rows = np.zeros(before.shape)
    known = min(count, before.shape[0])
    for i in range(before.shape[1]):
        rows[0, i] = charges[i] - last[i]
        for k in range(1, known):
            rows[k, i] = rows[k - 1, i] - before[k - 1, i]
    return rows
