"""Initial guesses of charges out of those of previous steps."""

from __future__ import annotations

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
        missed = self._differences[0] - self._before.sum(dim=0)
        gram = self._before @ self._before.T
        gram.diagonal().mul_(1.0 + _PRIOR).add_(torch.finfo(gram.dtype).tiny)
        weights = 1.0 + torch.linalg.solve(gram, self._before @ missed)
        if not bool(torch.isfinite(weights).all()):
            return self._last
        return torch.addmv(self._last, self._differences.T, weights)

    def accept(self, solution: torch.Tensor) -> None:
        """Take up the charges of a step, shape (N,), e.

        Charges that are not finite, or of another number of atoms, drop the history.
        """
        charges = solution.detach()
        if self._last is not None and self._last.shape != charges.shape:
            self.reset()
        if not bool(torch.isfinite(charges).all()):
            self.reset()
            return
        if self._last is not None and self._degree:
            before = self._differences
            if before is None:
                before = charges.new_zeros(self._degree, charges.shape[0])
            rows = before.new_empty(before.shape)
            torch.sub(charges, self._last, out=rows[0])
            for k in range(1, min(self._count, self._degree)):
                torch.sub(rows[k - 1], before[k - 1], out=rows[k])
            rows[self._count :] = 0.0
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
