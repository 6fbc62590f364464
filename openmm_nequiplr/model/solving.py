"""Who solves for the charges of an evaluation: dense factors, or iterations that remember.

The dense solver holds the Coulomb matrix and is exact; its time goes as N³, its memory as N². The
iterative one sums on a mesh when periodic and starts from the structures before. Its results depend
on that past within the tolerance and no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ..electrostatics import CoulombOperator, MeshCoulomb
from ..equilibration import (
    DenseSolver,
    Equilibration,
    IterativeSolver,
    JacobiPreconditioner,
    Preconditioner,
    adjoint_charges,
    positive_diagonal,
)
from ..equilibration.iterative import DEFAULT_MAX_ITERATIONS
from ..errors import InputError, describe
from ..graph import AtomicGraph
from .config import ModelConfig
from .memory import MESH_ACCURACY, ChargeMemory

SOLVERS = ("auto", "dense", "iterative")
#: Residual, relative to that of uniform charges, at which an iterative solve stops.
DEFAULT_CHARGE_TOLERANCE = 1e-4
#: From so many atoms on ``"auto"`` iterates, in a periodic cell and without one, where K is a
#: matrix all the same.
ITERATIVE_FROM = {True: 200, False: 2000}

_FINEST_MESH = 1e-9


@dataclass(frozen=True)
class SolverOptions:
    """How charges are solved for.

    Parameters
    ----------
    solver : {"auto", "dense", "iterative"}
        ``"auto"`` chooses by the number of atoms, see :data:`ITERATIVE_FROM`.
    charge_tolerance : float
        Of the iterative solver: residual, relative to that of uniform charges, at which it stops.
        The mesh is as accurate, and no less than :data:`.memory.MESH_ACCURACY`.
    max_iterations : int
        Of the iterative solver; more are an error.

    Raises
    ------
    InputError
        If a value makes no sense.
    """

    solver: str = "auto"
    charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE
    max_iterations: int = DEFAULT_MAX_ITERATIONS

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            expected = "one of " + ", ".join(map(repr, SOLVERS))
            raise InputError(describe("solver", self.solver, expected))
        tolerance, most = self.charge_tolerance, self.max_iterations
        real = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
        if not (real and 1e-12 <= tolerance <= 1e-2):
            expected = "a number from 1e-12 to 1e-2"
            raise InputError(describe("charge_tolerance", tolerance, expected))
        if not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 1:
            raise InputError(describe("max_iterations", most, "a whole number of at least 1"))

    @property
    def mesh_accuracy(self) -> float:
        """Relative error of the Coulomb forces that the mesh aims at."""
        return max(min(MESH_ACCURACY, self.charge_tolerance), _FINEST_MESH)

    def iterative(self, config: ModelConfig, count: int, periodic: bool) -> bool:
        """Whether ``count`` atoms are solved for iteratively.

        Raises
        ------
        InputError
            If that was asked for of a model whose Coulomb sums are those of the published code.
        """
        legacy = config.legacy_nonperiodic
        if periodic:
            legacy = config.legacy_periodic or config.legacy_ewald_cutoff
        if legacy and self.solver == "iterative":
            expected = "'dense' or 'auto' for a model converted from the published code"
            raise InputError(describe("solver", self.solver, expected))
        if legacy or self.solver == "dense":
            return False
        return self.solver == "iterative" or count >= ITERATIVE_FROM[periodic]


class DenseEquilibration:
    """Charges and adjoint charges of one structure by LU factors.

    Parameters
    ----------
    operator : CoulombOperator
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    """

    def __init__(self, operator: CoulombOperator, hardness: torch.Tensor) -> None:
        with torch.no_grad():
            self._kernel = operator.matrix().detach()
            self._solver = DenseSolver(self._kernel + torch.diag(hardness))

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        return self._kernel @ charges

    def solve(self, pushed: torch.Tensor, total_charge: torch.Tensor) -> Equilibration:
        """Charges for electronegativities, shape (N,), eV/e, and a total charge, e."""
        return self._solver.solve(pushed, total_charge)

    def adjoint(self, gradient: torch.Tensor) -> Equilibration:
        """Adjoint charges for a gradient by the charges, shape (N,), eV/e."""
        return adjoint_charges(self._solver, gradient)

    def finish(self) -> None:
        """Nothing is kept."""


#: Charges that a solve starts from, and A times these, as far as they are known.
_Start = tuple[torch.Tensor | None, torch.Tensor | None]


class _MatrixCoulomb:
    """An operator's potential and diagonal out of its matrix."""

    def __init__(self, operator: CoulombOperator) -> None:
        with torch.no_grad():
            self._kernel = operator.matrix()

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        return self._kernel @ charges

    def diagonal(self) -> torch.Tensor:
        return self._kernel.diagonal()


class IterativeEquilibration:
    """Charges and adjoint charges of one structure by conjugate gradients.

    Parameters
    ----------
    memory : ChargeMemory
    options : SolverOptions
    graph : AtomicGraph
    operator : CoulombOperator
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    """

    def __init__(
        self,
        memory: ChargeMemory,
        options: SolverOptions,
        graph: AtomicGraph,
        operator: CoulombOperator,
        hardness: torch.Tensor,
    ) -> None:
        if not graph.periodic[0]:  # K as a matrix: its products are faster than those over pairs
            operator = cast(CoulombOperator, _MatrixCoulomb(operator))
        self._memory, self._graph, self._operator = memory, graph, operator
        self._hardness = hardness.detach()
        self._adjoint_start: _Start = None, None
        self._track = memory.guesses(graph)
        self._results: list[Equilibration] = []
        with torch.no_grad():
            preconditioner: Preconditioner
            if graph.periodic[0]:
                preconditioner = memory.preconditioner.get(
                    graph.positions, graph.cell[0], operator, hardness
                )
            else:
                preconditioner = JacobiPreconditioner(positive_diagonal(operator, hardness))
            self._solver = IterativeSolver(
                operator,
                hardness,
                tolerance=options.charge_tolerance,
                max_iterations=options.max_iterations,
                preconditioner=preconditioner,
            )

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        with torch.no_grad():
            return self._operator.potential(charges)

    def solve(self, pushed: torch.Tensor, total_charge: torch.Tensor) -> Equilibration:
        """Charges for electronegativities, shape (N,), eV/e, and a total charge, e."""
        start = self._guess(total_charge)
        return self._keep(self._solver.solve(pushed, total_charge[0], *start))

    def adjoint(self, gradient: torch.Tensor) -> Equilibration:
        """Adjoint charges for a gradient by the charges, shape (N,), eV/e."""
        return self._keep(adjoint_charges(self._solver, gradient, *self._adjoint_start))

    def _guess(self, total_charge: torch.Tensor) -> _Start:
        """Where the charges start; that of the adjoint charges is kept for later.

        Products with both are taken at once, which a mesh does faster.
        """
        count = self._graph.num_atoms
        charges, adjoint = (p.predict(count) for p in (self._track.charges, self._track.adjoint))
        self._adjoint_start = adjoint, None
        if charges is None or adjoint is None or not isinstance(self._operator, MeshCoulomb):
            return charges, None
        both = torch.stack((charges, adjoint))
        totals = torch.cat((total_charge, torch.zeros_like(total_charge)))
        both += ((totals - both.sum(dim=1)) / count).unsqueeze(1)
        images = torch.addcmul(self._operator.potentials(both), self._hardness, both)
        self._adjoint_start = both[1], images[1]
        return both[0], images[0]

    def _keep(self, result: Equilibration) -> Equilibration:
        self._results.append(result)
        return result

    def finish(self) -> None:
        """Let the next structure profit from the results."""
        first, second = self._results
        self._track.advance(self._graph, first.charges, second.charges)
        self._memory.preconditioner.report(max(first.iterations, second.iterations))
