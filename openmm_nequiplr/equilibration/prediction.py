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

    past: torch.Tensor
    table: torch.Tensor

    def __init__(self, degree: int = DEFAULT_DEGREE) -> None:
        super().__init__()
        if degree < 0:
            raise InputError(describe("degree", degree, "at least 0"))
        #: Number of solutions at hand, and of iterations that the next one may take.
        self.solutions, self.expected = 0, 0
        self.degree, self.prior = degree, _PRIOR
        # the last solutions, shape (degree + 2, N), the newest first, and what differences are of
        # them: ∇x to ∇^degree x there and at the solution before, and by how much these missed
        self.register_buffer("past", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        table = torch.zeros(2 * degree + 1, degree + 2, dtype=torch.float64)
        for k in range(1, degree + 1):
            for j in range(k + 1):
                table[k - 1, j] = table[degree + k - 1, j + 1] = (-1) ** j * math.comb(k, j)
        table[-1, 0], table[-1, 1] = 1.0, -1.0
        table[-1] -= table[degree:-1].sum(dim=0)
        self.register_buffer("table", table, persistent=False)

    def predict(self, count: int | None = None) -> torch.Tensor | None:
        """The guess for the next step, shape (N,), e, or None when there is nothing to go by.

        Parameters
        ----------
        count : int, optional
            Number of atoms of the next structure; if it is not that of the history, the history is
            dropped.
        """
        if count is not None and self.past.shape[1] != count:
            self.reset()
        if self.solutions == 0:
            return None
        last, degree = self.past[0], self.degree
        if self.solutions < degree + 2 or degree == 0:
            known = self.table[: min(self.solutions - 1, degree)]
            return torch.addmv(last, self.past.t(), known.sum(dim=0))
        found = self.table @ self.past
        before = found[degree : 2 * degree]
        products = before @ found[degree:].t()
        products.diagonal().mul_(1.0 + self.prior).add_(1e-300)
        fitted = 1.0 + torch.linalg.solve_ex(products[:, :degree], products[:, degree])[0]
        weights = torch.nan_to_num(fitted, nan=0.0, posinf=0.0, neginf=0.0)
        return torch.addmv(last, found[:degree].t(), weights)

    def accept(self, solution: torch.Tensor) -> None:
        """Take up the charges of a step, shape (N,), e.

        Charges that are not finite, or of another number of atoms, drop the history. On a GPU they
        are taken for finite, as those of a solve are that has converged.
        """
        finite = solution.is_cuda or math.isfinite(float(solution.sum()))
        if not finite or self.solutions == 0 or self.past.shape[1] != solution.shape[0]:
            self.reset()
            if not finite:
                return
            self.table = self.table.to(solution)
            self.past = solution.new_zeros([self.degree + 2, solution.shape[0]])
        self.past = torch.cat((solution.unsqueeze(0), self.past[:-1]))
        self.solutions = min(self.solutions + 1, self.degree + 2)

    def report(self, iterations: int) -> None:
        """Tell how many iterations a solve took from the guess."""
        self.expected = max(iterations, 1)

    def reset(self) -> None:
        """Forget all solutions."""
        self.solutions, self.past = 0, self.past[:, :0]
