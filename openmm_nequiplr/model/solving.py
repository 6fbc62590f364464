"""Who solves for the charges of an evaluation: dense factors, or iterations that remember.

The dense solver holds the Coulomb matrix and is exact; its time goes as N³, its memory as N². The
iterative one sums on a mesh when periodic and starts from the structures before. Its results depend
on that past within the tolerance and no further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..electrostatics import CoulombOperator, MeshCoulomb, MeshGeometry, mesh_geometry
from ..equilibration import (
    ChargePredictor,
    DenseSolver,
    Equilibration,
    IterativeSolver,
    JacobiPreconditioner,
    Preconditioner,
    ReusedPreconditioner,
    adjoint_charges,
    positive_diagonal,
)
from ..equilibration.iterative import DEFAULT_MAX_ITERATIONS
from ..errors import ConvergenceError, InputError, describe
from ..graph import AtomicGraph
from .config import ModelConfig
from .potential import NequIPLRPotential

SOLVERS = ("auto", "dense", "iterative")
#: Residual, relative to that of uniform charges, at which an iterative solve stops.
DEFAULT_CHARGE_TOLERANCE = 1e-5
#: From so many atoms on ``"auto"`` iterates; in free space K is a matrix all the same.
ITERATIVE_FROM = {True: 600, False: 2000}
#: Relative error of the Coulomb forces that the mesh aims at.
MESH_ACCURACY = 1e-5

# An atom that moved farther (Å) since the last structure has not done so within a time step.
_LONGEST_STEP = 0.3
# The splitting is chosen anew once the cell is strained by more than this.
_SAME_SPLITTING = 0.05


@dataclass(frozen=True)
class SolverOptions:
    """How charges are solved for.

    Parameters
    ----------
    solver : {"auto", "dense", "iterative"}
        ``"auto"`` chooses by the number of atoms, see :data:`ITERATIVE_FROM`.
    charge_tolerance : float
        Of the iterative solver: residual, relative to that of uniform charges, at which it stops.
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


class ChargeMemory:
    """What iterative solves keep from one structure to the next: mesh, preconditioner, charges.

    Guesses are extrapolated along structures of the same atoms, charge and cell that follow one
    another by small moves. Anything else (a box that a barostat tries, positions that were set, a
    loaded state) does not enter: a trial box starts from the last charges, and they are forgotten
    only if a next structure continues from the trial. Atoms may be wrapped at any time.

    Parameters
    ----------
    model : NequIPLRPotential
    options : SolverOptions
    accuracy : float
        Relative error of the Coulomb forces that the mesh aims at.
    """

    def __init__(
        self, model: NequIPLRPotential, options: SolverOptions, accuracy: float = MESH_ACCURACY
    ) -> None:
        self.model, self.options, self.accuracy = model, options, accuracy
        self.preconditioner = ReusedPreconditioner(model.config.coulomb_constant)
        self.geometries = 0
        self._geometry: MeshGeometry | None = None
        self._device: torch.device | None = None
        self._chosen: np.ndarray | None = None
        self._track: _Track | None = None
        self._trial: _Track | None = None

    def reset(self) -> None:
        """Forget everything."""
        self.preconditioner.reset()
        self._geometry = self._chosen = self._track = self._trial = None

    def mesh(self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor) -> MeshCoulomb:
        """The mesh operator of a periodic structure; the tensors may carry gradients.

        Parameters
        ----------
        graph : AtomicGraph
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å
        """
        widths = self.model.widths[graph.types]
        points, box = _numpy(positions), _numpy(cell)
        geometry, images = self._geometry, None
        if geometry is not None and geometry.positions.shape == points.shape:
            moved = points - geometry.positions @ np.linalg.solve(geometry.cell, box)
            images = np.rint(moved @ np.linalg.inv(box))
            points = points - images @ box if images.any() else points
        fits = self._track is None or self._track.same_atoms(graph)
        if geometry is None or not fits or not geometry.serves(points, box):
            parameters = geometry.parameters if geometry is not None and fits else None
            if self._chosen is None or _strain(self._chosen, box) > _SAME_SPLITTING:
                parameters = None
            if parameters is None:
                self._chosen = box.copy()
            points, images = _numpy(positions), None
            geometry = mesh_geometry(
                points, box, _numpy(widths), self.accuracy, parameters=parameters
            ).to(graph.positions.device)
            self._geometry = geometry
            self.geometries += 1
        if images is not None and images.any():
            positions = positions - torch.from_numpy(images).to(cell.device) @ cell
        constant = self.model.config.coulomb_constant
        return MeshCoulomb(positions, cell, widths, geometry, constant)

    def guesses(self, graph: AtomicGraph) -> _Track:
        """Where the solves for a structure start, and where their results belong."""
        track, trial = self._track, self._trial
        if track is not None and not track.same_atoms(graph):
            self.preconditioner.reset()
            track = trial = None
        if track is not None and not track.continues(graph):
            if trial is not None and trial.continues(graph):
                track, trial = trial, None
            elif not track.same_cell(graph):
                trial = track.branched(graph)
                self._track, self._trial = track, trial
                return trial
            else:
                track = trial = None
        if track is None:
            track, trial = _Track(graph), None
        self._track, self._trial = track, trial
        return track

    def forget(self) -> None:
        """Drop the charges, as after a failed solve."""
        self._track = self._trial = None
        self.preconditioner.reset()


class _Track:
    """Charges along structures that follow one another by small moves."""

    def __init__(self, graph: AtomicGraph) -> None:
        self.types, self.total_charge = graph.types, float(graph.total_charge)
        self.cell = _numpy(graph.cell[0])
        self.periodic = graph.periodic[0]
        self.positions: np.ndarray | None = None
        self.charges, self.adjoint = ChargePredictor(), ChargePredictor()

    def same_atoms(self, graph: AtomicGraph) -> bool:
        if self.types is not graph.types and not torch.equal(self.types, graph.types):
            return False
        charge = float(graph.total_charge)
        return charge == self.total_charge and graph.periodic[0] == self.periodic

    def same_cell(self, graph: AtomicGraph) -> bool:
        return not self.periodic or np.array_equal(self.cell, _numpy(graph.cell[0]))

    def _moved(self, graph: AtomicGraph) -> float:
        """Farthest that an atom has come, modulo lattice vectors and with the cell's strain, Å."""
        if self.positions is None:
            return math.inf
        points, box = _numpy(graph.positions), _numpy(graph.cell[0])
        if not self.periodic:
            return float(np.abs(points - self.positions).max())
        # a barostat moves whole molecules, so affine to within its small strain
        moved = points - self.positions @ np.linalg.solve(self.cell, box)
        moved -= np.rint(moved @ np.linalg.inv(box)) @ box
        return float(np.abs(moved).max())

    def continues(self, graph: AtomicGraph) -> bool:
        """Whether a structure is the next one of this track."""
        return self.same_cell(graph) and self._moved(graph) <= _LONGEST_STEP

    def branched(self, graph: AtomicGraph) -> _Track:
        """A track for another cell; it starts from the last charges if the atoms are near."""
        other = _Track(graph)
        if self._moved(graph) <= _LONGEST_STEP:
            other.charges, other.adjoint = self.charges.last_only(), self.adjoint.last_only()
        return other

    def advance(self, graph: AtomicGraph, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Take up the results of a structure; the same one again does not count as a step."""
        if self.positions is None:  # charges of another cell were good enough for the guess
            self.charges.reset()
            self.adjoint.reset()
        elif self._moved(graph) == 0.0:
            return
        self.charges.accept(charges)
        self.adjoint.accept(adjoint)
        self.positions = _numpy(graph.positions).copy()


class IterativeEquilibration:
    """Charges and adjoint charges of one structure by conjugate gradients.

    Parameters
    ----------
    memory : ChargeMemory
    graph : AtomicGraph
    operator : CoulombOperator
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    """

    def __init__(
        self,
        memory: ChargeMemory,
        graph: AtomicGraph,
        operator: CoulombOperator,
        hardness: torch.Tensor,
    ) -> None:
        self._memory, self._graph, self._operator = memory, graph, operator
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
                tolerance=memory.options.charge_tolerance,
                max_iterations=memory.options.max_iterations,
                preconditioner=preconditioner,
            )

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        with torch.no_grad():
            return self._operator.potential(charges)

    def solve(self, pushed: torch.Tensor, total_charge: torch.Tensor) -> Equilibration:
        """Charges for electronegativities, shape (N,), eV/e, and a total charge, e."""
        guess = self._track.charges.predict(self._graph.num_atoms)
        return self._keep(lambda: self._solver.solve(pushed, total_charge[0], guess))

    def adjoint(self, gradient: torch.Tensor) -> Equilibration:
        """Adjoint charges for a gradient by the charges, shape (N,), eV/e."""
        guess = self._track.adjoint.predict(self._graph.num_atoms)
        return self._keep(lambda: adjoint_charges(self._solver, gradient, guess))

    def _keep(self, solve) -> Equilibration:
        try:
            result: Equilibration = solve()
        except ConvergenceError:
            self._memory.forget()
            raise
        self._results.append(result)
        return result

    def finish(self) -> None:
        """Let the next structure profit from the results."""
        first, second = self._results
        self._track.advance(self._graph, first.charges, second.charges)
        self._memory.preconditioner.report(max(first.iterations, second.iterations))


def _strain(cell: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(np.linalg.solve(cell, other) - np.eye(3)).max())


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
