"""Initial guesses of charges, extrapolated from previous time steps."""

# TorchScript compiles the predictor and reads its annotations: no postponed ones here
import math

import torch

from ..errors import InputError, describe

#: Order of the highest difference in the extrapolation.
DEFAULT_DEGREE = 3
# Relative weight of the polynomial as the prior of the least-squares fit.
_PRIOR = 1e-6


def solved(equations: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Solution x, shape (d,), of A x = b with A symmetric and positive definite.

    Libraries for GPUs do not promise that their solvers can be recorded.

    Parameters
    ----------
    equations : torch.Tensor, shape (d, d + 1)
        A and b.
    one : torch.Tensor, shape (d, d)
        Unit matrix.
    """
    for k in range(one.shape[0]):  # Gauss-Jordan elimination
        row, column = equations[k] / equations[k, k], equations[:, k] - one[k]
        equations = torch.addr(equations, column, row, alpha=-1.0)
    return equations[:, -1]


class ChargePredictor(torch.nn.Module):
    """Extrapolation of charges over equal time steps from the last solutions.

    The guess is x + Σ_k a_k ∇ᵏx with the backward differences ∇ᵏ up to the order ``degree``. With
    a_k = 1 it is the polynomial through the last solutions, which suits smooth motion. The random
    kicks of a thermostat call for smaller a_k. They are fitted to predict the last solution best,
    by least squares over the atoms.

    The solutions must belong to the same atoms in the same order, at equidistant times. Call
    :meth:`reset` after any other change (a new box, reordered atoms, a restored state). A change in
    the number of atoms is detected.

    Parameters
    ----------
    degree : int
        Order of the highest difference; 0 repeats the last solution. The coefficients are fitted
        once degree + 2 solutions are stored; before, the guess is the polynomial through them.
    """

    past: torch.Tensor
    table: torch.Tensor
    one: torch.Tensor

    def __init__(self, degree: int = DEFAULT_DEGREE) -> None:
        super().__init__()
        if degree < 0:
            raise InputError(describe("degree", degree, "at least 0"))
        #: Number of stored solutions, and expected number of iterations of the next solve.
        self.solutions, self.expected = 0, 0
        self.degree, self.prior = degree, _PRIOR
        # the last solutions, shape (degree + 2, N), the newest first, and the coefficients of their
        # differences: ∇x to ∇^degree x of the last and of the previous solution, and the error of
        # the polynomial's prediction of the last
        self.register_buffer("past", torch.zeros(0, 0, dtype=torch.float64), persistent=False)
        table = torch.zeros(2 * degree + 1, degree + 2, dtype=torch.float64)
        for k in range(1, degree + 1):
            for j in range(k + 1):
                table[k - 1, j] = table[degree + k - 1, j + 1] = (-1) ** j * math.comb(k, j)
        table[-1, 0], table[-1, 1] = 1.0, -1.0
        table[-1] -= table[degree:-1].sum(dim=0)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("one", torch.eye(degree, dtype=torch.float64), persistent=False)

    @property
    def full(self) -> bool:
        """Whether the history has all the solutions that it holds at most."""
        return self.solutions == self.degree + 2

    def predict(self, count: int | None = None) -> torch.Tensor | None:
        """Guess for the next step, shape (N,), e, or None without a stored solution.

        Parameters
        ----------
        count : int, optional
            Number of atoms of the next structure. If the stored solutions have another number, they
            are dropped.
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
        fitted = 1.0 + solved(products, self.one)
        weights = torch.nan_to_num(fitted, nan=0.0, posinf=0.0, neginf=0.0)
        return torch.addmv(last, found[:degree].t(), weights)

    def accept(self, solution: torch.Tensor) -> None:
        """Store the charges of a step, shape (N,), e.

        Charges that are not finite, or of another number of atoms, clear the history. On a GPU they
        are assumed to be finite, as a converged solve guarantees.
        """
        finite = solution.is_cuda or math.isfinite(float(solution.sum()))
        if not finite or self.solutions == 0 or self.past.shape[1] != solution.shape[0]:
            self.reset()
            if not finite:
                return
            self.table, self.one = self.table.to(solution), self.one.to(solution)
            self.past = solution.new_zeros([self.degree + 2, solution.shape[0]])
        # in place: kernels that a GPU recorded read the history where it is
        self.past.copy_(torch.cat((solution.unsqueeze(0), self.past[:-1])))
        self.solutions = min(self.solutions + 1, self.degree + 2)

    def report(self, iterations: int) -> None:
        """Record the number of iterations that a solve took from the guess."""
        self.expected = max(iterations, 1)

    def reset(self) -> None:
        """Drop all stored solutions."""
        self.solutions, self.past = 0, self.past[:, :0]
