"""Initial guesses of charges out of those of previous steps."""

# TorchScript compiles the predictor and reads its annotations: no postponed ones here
import math

import torch

from ..errors import InputError, describe

#: Differences that the extrapolation takes in.
DEFAULT_DEGREE = 3
# Relative weight with which it stays a polynomial where the last step says nothing else.
_PRIOR = 1e-6


class ChargePredictor(torch.nn.Module):
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

    last: torch.Tensor
    differences: torch.Tensor
    before: torch.Tensor

    def __init__(self, degree: int = DEFAULT_DEGREE) -> None:
        super().__init__()
        if degree < 0:
            raise InputError(describe("degree", degree, "at least 0"))
        #: Number of solutions at hand, and of iterations that the next one may take.
        self.solutions, self.expected = 0, 0
        self.degree, self.prior = degree, _PRIOR
        # x, and ∇x to ∇^degree x there and at the solution before, shape (degree, N)
        nothing = torch.zeros(0, dtype=torch.float64)
        self.register_buffer("last", nothing, persistent=False)
        self.register_buffer("differences", nothing, persistent=False)
        self.register_buffer("before", nothing, persistent=False)

    def predict(self, count: int | None = None) -> torch.Tensor | None:
        """The guess for the next step, shape (N,), e, or None when there is nothing to go by.

        Parameters
        ----------
        count : int, optional
            Number of atoms of the next structure; if it is not that of the history, the history is
            dropped.
        """
        if count is not None and self.last.shape[0] != count:
            self.reset()
        if self.solutions == 0:
            return None
        if self.solutions < self.degree + 2 or self.degree == 0:
            return self.last + self.differences.sum(dim=0)
        missed = self.differences[0] - self.before.sum(dim=0)
        gram = self.before @ self.before.t()
        gram.diagonal().mul_(1.0 + self.prior).add_(1e-300)
        fitted = 1.0 + torch.linalg.solve_ex(gram, self.before @ missed)[0]
        weights = torch.nan_to_num(fitted, nan=0.0, posinf=0.0, neginf=0.0)
        return torch.addmv(self.last, self.differences.t(), weights)

    def accept(self, solution: torch.Tensor) -> None:
        """Take up the charges of a step, shape (N,), e.

        Charges that are not finite, or of another number of atoms, drop the history. On a GPU they
        are taken for finite, as those of a solve are that has converged.
        """
        finite = solution.is_cuda or math.isfinite(float(solution.sum()))
        if not finite or self.last.shape[0] != solution.shape[0]:
            self.reset()
        if not finite:
            return
        rows = [solution - self.last if self.solutions > 0 else torch.zeros_like(solution)]
        for k in range(1, self.degree):
            if k < self.solutions:
                rows.append(rows[-1] - self.differences[k - 1])
            else:
                rows.append(torch.zeros_like(solution))
        self.before = self.differences
        self.differences = torch.stack(rows)[: self.degree]
        self.last = solution.clone()
        self.solutions = min(self.solutions + 1, self.degree + 2)

    def report(self, iterations: int) -> None:
        """Tell how many iterations a solve took from the guess."""
        self.expected = max(iterations, 1)

    def reset(self) -> None:
        """Forget all solutions."""
        self.solutions = 0
        self.last = self.last[:0]
