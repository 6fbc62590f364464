"""Charge equilibration inside the graph: LU factors, or conjugate gradients that remember.

The twins of :mod:`..solving`: ``operator`` is one of :mod:`.direct` or :mod:`.mesh`, ``kept`` what
its ``setup`` returned.
"""

import math

import torch

from ...equilibration.preconditioning import default_waves
from ..solving import SolverOptions

#: An atom that moved farther (Å) since the last evaluation has not done so within a time step.
LONGEST_STEP = 0.3
#: Solutions that a guess is extrapolated from.
HISTORY = 4


def neutral(vector: torch.Tensor) -> torch.Tensor:
    """The part that sums to zero."""
    return vector - vector.mean()


class DenseCharges(torch.nn.Module):
    """Charges by LU factors of the bordered matrix.

    Parameters
    ----------
    operator : torch.nn.Module
    """

    def __init__(self, operator: torch.nn.Module) -> None:
        super().__init__()
        self.operator, self.failure = operator, ""

    def begin(
        self,
        kept: list[torch.Tensor],
        hardness: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
    ) -> list[torch.Tensor]:
        """K and the factors."""
        kernel = self.operator.matrix(kept)
        count = kernel.shape[0]
        full = kernel.new_ones([count + 1, count + 1])
        full[:count, :count] = kernel + torch.diag(hardness)
        full[count, count] = 0.0
        if not bool(torch.isfinite(full).all()):
            raise RuntimeError(
                "charge equilibration failed: the Coulomb matrix is not finite; atoms on top of "
                "one another and non-finite positions are the usual causes"
            )
        factors, pivots, info = torch.linalg.lu_factor_ex(full)
        if int(info) != 0:
            raise RuntimeError(
                "charge equilibration failed: the matrix is singular; atoms on top of one another "
                "and a hardness near zero are the usual causes"
            )
        return [kernel, factors, pivots]

    def potential(
        self, kept: list[torch.Tensor], state: list[torch.Tensor], charges: torch.Tensor
    ) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        return state[0] @ charges

    def solve(
        self,
        kept: list[torch.Tensor],
        state: list[torch.Tensor],
        pushed: torch.Tensor,
        total: float,
        adjoint: bool,
    ) -> torch.Tensor:
        """The charges, shape (N,), e, that minimise χᵀQ + ½QᵀAQ at a total charge."""
        end = torch.full([1], total, dtype=pushed.dtype, device=pushed.device)
        right = torch.cat((-pushed, end)).unsqueeze(-1)
        return torch.linalg.lu_solve(state[1], state[2], right).squeeze(-1)[:-1]

    def finish(self, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Nothing is kept."""

    def forget(self) -> None:
        """Nothing was kept."""


class WoodburyFactor(torch.nn.Module):
    """:class:`openmm_nequiplr.equilibration.WoodburyPreconditioner`, kept over steps.

    Parameters
    ----------
    constant : float, eV Å/e²
    count : int
        Number N of atoms.
    growth : int
        It is made anew once a solve took so many iterations more than the first one with it.
    """

    def __init__(self, constant: float, count: int, growth: int = 4) -> None:
        super().__init__()
        self.constant, self.waves, self.growth = constant, default_waves(count), growth
        self.register_buffer("inverse", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("wave", torch.zeros(0, 0, dtype=torch.float32))
        self.register_buffer("middle", torch.zeros(0, 0, dtype=torch.float32))
        self.register_buffer("cell", torch.eye(3, dtype=torch.float64))
        self.first = -1

    def _lowest_waves(self, cell: torch.Tensor) -> torch.Tensor:
        """The shortest reciprocal vectors, one of each ±k; shape (waves, 3), 1/Å."""
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).t()
        volume = float(torch.linalg.det(reciprocal).abs())
        radius = 1.3 * math.pow(1.5 * self.waves / math.pi * volume, 1.0 / 3.0)
        lengths: list[float] = torch.linalg.vector_norm(cell, dim=-1).tolist()
        vectors = reciprocal[:0]
        while vectors.shape[0] < self.waves:
            axes: list[torch.Tensor] = []
            for length in lengths:
                most = math.floor(radius * length / (2.0 * math.pi))
                axes.append(torch.arange(-most, most + 1, dtype=cell.dtype, device=cell.device))
            grid = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).reshape(-1, 3)
            vectors = grid[grid.shape[0] // 2 + 1 :] @ reciprocal
            size = torch.linalg.vector_norm(vectors, dim=-1)
            order = torch.argsort(size)[: int((size <= radius).sum())]
            vectors = vectors.index_select(0, order)
            radius = 1.5 * radius
        return vectors[: self.waves]

    def prepare(self, diagonal: torch.Tensor, positions: torch.Tensor, cell: torch.Tensor) -> None:
        """Make it fit; ``diagonal`` of A, positive, shape (N,), eV/e²."""
        if self.inverse.shape[0] == diagonal.shape[0]:
            strain = torch.linalg.solve(self.cell, cell) - torch.eye(
                3, dtype=cell.dtype, device=cell.device
            )
            if bool(strain.abs().max() < 0.02):
                return
        self.inverse = 1.0 / diagonal
        vectors = self._lowest_waves(cell)
        volume = torch.linalg.det(cell).abs()
        root = torch.sqrt(8.0 * math.pi * self.constant / volume / (vectors**2).sum(dim=-1))
        phase = positions @ vectors.t()
        wave = torch.cat((torch.cos(phase) * root, torch.sin(phase) * root), dim=1)
        self.wave = wave.to(torch.float32)
        scaled = self.wave * self.inverse.to(torch.float32).unsqueeze(-1)
        capacitance = (scaled.t() @ self.wave).to(torch.float64)
        size = capacitance.shape[0]
        capacitance = capacitance + torch.eye(size, dtype=torch.float64, device=cell.device)
        factor = torch.linalg.cholesky(capacitance)
        self.middle = torch.cholesky_inverse(factor).to(torch.float32)
        self.cell, self.first = cell.clone(), -1

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """M⁻¹ r, shape (N,)."""
        first = self.inverse * residual
        size = first.abs().max()
        if not bool(size > 0):
            return first
        short = (first / size).to(torch.float32)
        correction = self.wave @ (self.middle @ (self.wave.t() @ short))
        return first - self.inverse * size * correction.to(torch.float64)

    def report(self, iterations: int) -> None:
        """Tell how many iterations a solve with it took."""
        if self.first < 0:
            self.first = iterations
        elif iterations > self.first + self.growth:
            self.forget()

    def forget(self) -> None:
        """Make it anew the next time."""
        self.inverse = self.inverse[:0]


class DiagonalFactor(torch.nn.Module):
    """The diagonal of A, for matrices in free space."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inverse", torch.zeros(0, dtype=torch.float64))

    def prepare(self, diagonal: torch.Tensor, positions: torch.Tensor, cell: torch.Tensor) -> None:
        """Take the diagonal of A, positive, shape (N,), eV/e²."""
        self.inverse = 1.0 / diagonal

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """D⁻¹ r, shape (N,)."""
        return self.inverse * residual

    def report(self, iterations: int) -> None:
        """Nothing follows from it."""

    def forget(self) -> None:
        """Nothing was kept."""


class IterativeCharges(torch.nn.Module):
    """Charges by projected conjugate gradients; twin of
    :class:`openmm_nequiplr.equilibration.IterativeSolver`.

    Guesses are extrapolated from the last evaluations while atoms move little in the same cell.
    They are used where they are nearer than uniform charges, and change results within the
    tolerance.

    Parameters
    ----------
    operator : torch.nn.Module
    factor : WoodburyFactor or DiagonalFactor
    options : SolverOptions
    """

    def __init__(
        self, operator: torch.nn.Module, factor: torch.nn.Module, options: SolverOptions
    ) -> None:
        super().__init__()
        self.operator, self.factor = operator, factor
        #: What the graph has to raise: torch crashes where a loop of a frozen graph raises.
        self.failure = ""
        self.tolerance = float(options.charge_tolerance)
        self.max_iterations = int(options.max_iterations)
        empty = torch.zeros(0, 0, dtype=torch.float64)
        self.register_buffer("charge_history", empty)
        self.register_buffer("adjoint_history", empty.clone())
        self.register_buffer("positions", torch.zeros(0, 3, dtype=torch.float64))
        self.register_buffer("cell", torch.eye(3, dtype=torch.float64))
        self.register_buffer("current", torch.zeros(0, 3, dtype=torch.float64))
        self.register_buffer("hardness", torch.zeros(0, dtype=torch.float64))
        self.iterations, self.remembered, self.longest_step = 0, HISTORY, LONGEST_STEP

    def begin(
        self,
        kept: list[torch.Tensor],
        hardness: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Preconditioner and guesses; nothing that has to be handed on."""
        self.hardness, self.current, self.iterations = hardness, positions, 0
        self.failure = ""
        self.factor.prepare(self.operator.diagonal(kept).clamp(min=0.0) + hardness, positions, cell)
        near = self.positions.shape[0] == positions.shape[0] and torch.equal(self.cell, cell)
        if near:
            moved = positions - self.positions
            moved = moved - torch.round(moved @ torch.linalg.inv(cell)) @ cell
            near = bool(moved.abs().max() <= self.longest_step)
        if not near:
            self.charge_history = self.charge_history[:0]
            self.adjoint_history = self.adjoint_history[:0]
            self.positions = self.positions[:0]
        self.cell = cell.clone()
        return [self.factor(torch.ones_like(hardness))]

    def potential(
        self, kept: list[torch.Tensor], state: list[torch.Tensor], charges: torch.Tensor
    ) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        return self.operator.potential(kept, charges)

    def _product(self, kept: list[torch.Tensor], charges: torch.Tensor) -> torch.Tensor:
        return self.operator.potential(kept, charges) + self.hardness * charges

    def _guess(self, history: torch.Tensor, total: float) -> torch.Tensor:
        """Polynomial extrapolation over equal steps, shifted to the total charge."""
        points = history.shape[0]
        guess = torch.zeros_like(history[0])
        weight = 1.0
        for back in range(1, points + 1):
            weight = -weight * float(points - back + 1) / float(back)
            guess = guess - weight * history[back - 1]
        return guess + (total - guess.sum()) / float(guess.shape[0])

    def solve(
        self,
        kept: list[torch.Tensor],
        state: list[torch.Tensor],
        pushed: torch.Tensor,
        total: float,
        adjoint: bool,
    ) -> torch.Tensor:
        """The charges, shape (N,), e, that minimise χᵀQ + ½QᵀAQ at a total charge."""
        charges = torch.full_like(pushed, total / float(pushed.shape[0]))
        slope = pushed
        if total != 0.0:
            slope = pushed + self._product(kept, charges)
        start = float(torch.linalg.vector_norm(neutral(slope)))
        history = self.adjoint_history if adjoint else self.charge_history
        if history.shape[0] > 0:
            guess = self._guess(history, total)
            guessed = pushed + self._product(kept, guess)
            if float(torch.linalg.vector_norm(neutral(guessed))) < start:
                charges, slope = guess, guessed
        return self._iterate(kept, state[0], charges, -neutral(slope), self.tolerance * start)

    def _iterate(
        self,
        kept: list[torch.Tensor],
        ones: torch.Tensor,
        charges: torch.Tensor,
        residual: torch.Tensor,
        goal: float,
    ) -> torch.Tensor:
        direction = torch.zeros_like(charges)
        before, curvature, product, iteration = 1.0, 1.0, 1.0, 0
        size = float(torch.linalg.vector_norm(residual))
        going = math.isfinite(size)
        while going and size > goal and iteration < self.max_iterations:
            solved = self.factor(residual)
            solved = neutral(solved - solved.sum() / ones.sum() * ones)
            product = float(residual @ solved)
            direction = solved + (product / before if iteration > 0 else 0.0) * direction
            before = product
            image = neutral(self._product(kept, direction))
            curvature = float(direction @ image)
            if curvature > 0.0 and product > 0.0:
                charges = charges + product / curvature * direction
                residual = residual - product / curvature * image
                size = float(torch.linalg.vector_norm(residual))
                iteration += 1
            going = curvature > 0.0 and product > 0.0 and math.isfinite(size)
        self.iterations = max(self.iterations, iteration)
        if not size <= goal:
            self._forget_guesses()
            self.failure = (
                "charge equilibration failed: residual {} eV/e after {} iterations, {} wanted; "
                "raise max_iterations (now {}) or loosen the relative tolerance (charge_tolerance, "
                "now {}); atoms on top of one another and a hardness near zero are other "
                "causes".format(size, iteration, goal, self.max_iterations, self.tolerance)
            )
            if not (curvature > 0.0 and product > 0.0):
                self.failure = (
                    "charge equilibration failed: the matrix or its preconditioner is not positive "
                    "definite; use solver='dense', and see whether atoms lie on top of one another"
                )
        return charges

    def _forget_guesses(self) -> None:
        self.positions = self.positions[:0]
        self.charge_history = self.charge_history[:0]
        self.adjoint_history = self.adjoint_history[:0]

    def forget(self) -> None:
        """Keep nothing of an evaluation that failed, once its solves are over."""
        self._forget_guesses()
        self.factor.forget()

    def finish(self, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Let the next evaluation profit; the same geometry again does not count as a step."""
        if len(self.failure) > 0:
            return
        self.factor.report(self.iterations)
        repeated = self.positions.shape[0] > 0 and torch.equal(self.positions, self.current)
        if not repeated:
            self.charge_history = self._pushed(self.charge_history, charges)
            self.adjoint_history = self._pushed(self.adjoint_history, adjoint)
        self.positions = self.current

    def _pushed(self, history: torch.Tensor, latest: torch.Tensor) -> torch.Tensor:
        if history.shape[0] == 0:
            return latest.unsqueeze(0)
        kept = history[: self.remembered - 1]
        return torch.cat((latest.unsqueeze(0), kept))
