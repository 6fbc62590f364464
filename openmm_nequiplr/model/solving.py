"""Charge solvers of an evaluation: dense LU, or warm-started conjugate gradients.

The dense solver stores the Coulomb matrix and is exact; its time is proportional to N³ and its
memory to N². The iterative solver uses a mesh for periodic structures and extrapolates initial
guesses from previous structures. These affect its results only within the tolerance.
"""

# TorchScript compiles the solvers and reads their annotations: no postponed ones here
from dataclasses import dataclass
from typing import Any

import torch

from ..checks import is_whole
from ..costs import Crossings, crossings
from ..electrostatics.operator import block_product
from ..equilibration import DenseSolver, Equilibration, IterativeSolver, positive_diagonal
from ..equilibration.iterative import DEFAULT_MAX_ITERATIONS
from ..errors import ConvergenceError, InputError, describe
from .config import ModelConfig

SOLVERS = ("auto", "dense", "iterative")
#: Convergence criterion: residual relative to that of uniform charges.
DEFAULT_CHARGE_TOLERANCE = 1e-4
#: The same for structures so small that a CPU solves for their charges exactly.
SHARP_TOLERANCE = 1e-6
#: Relative error of the Coulomb forces of the mesh.
MESH_ACCURACY = 1e-4
_FINEST_MESH = 1e-9


@dataclass(frozen=True)
class SolverOptions:
    """Options of the charge solver.

    Parameters
    ----------
    solver : {"auto", "dense", "iterative"}
        ``"auto"`` selects by the number of atoms, see :class:`openmm_nequiplr.costs.Crossings`.
    charge_tolerance : float
        Relative tolerance of the iterative solver: residual divided by that of uniform charges. The
        relative error of the mesh is the same, but at most :data:`MESH_ACCURACY`. The default
        stands for :data:`SHARP_TOLERANCE` in structures that a CPU solves by the dense solver.
    max_iterations : int
        Largest number of iterations; if they do not suffice, an error is raised.

    Raises
    ------
    InputError
        If a value is invalid.
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
        if not is_whole(most) or most < 1:
            raise InputError(describe("max_iterations", most, "a whole number of at least 1"))

    @property
    def mesh_accuracy(self) -> float:
        """Relative error of the Coulomb forces of the mesh."""
        return max(min(MESH_ACCURACY, self.charge_tolerance), _FINEST_MESH)

    def tolerance(self, count: int, periodic: bool) -> float:
        """Tolerance of the iterative solver for ``count`` atoms."""
        least = Crossings.periodic if periodic else Crossings.free
        usual = self.charge_tolerance == DEFAULT_CHARGE_TOLERANCE and self.solver == "auto"
        return SHARP_TOLERANCE if usual and count < least else self.charge_tolerance

    def iterative(
        self, config: ModelConfig, count: int, periodic: bool, device: Any = None
    ) -> bool:
        """Whether the iterative solver is used for ``count`` atoms on a torch device.

        Raises
        ------
        InputError
            If the iterative solver is requested for a model with the Coulomb sums of the published
            code.
        """
        legacy = config.legacy_nonperiodic
        if periodic:
            legacy = config.legacy_periodic or config.legacy_ewald_cutoff
        if legacy and self.solver == "iterative":
            expected = "'dense' or 'auto' for a model converted from the published code"
            raise InputError(describe("solver", self.solver, expected))
        if legacy or self.solver == "dense":
            return False
        least = crossings(device)
        return self.solver == "iterative" or count >= (least.periodic if periodic else least.free)


class DenseEquilibration(DenseSolver):
    """Charges and adjoint charges of one structure by LU factorisation.

    Parameters
    ----------
    operator : CoulombOperator
    """

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.operator, self.failure = operator, ""
        empty = torch.zeros(0, 0, dtype=torch.float64)
        self.register_buffer("kernel", empty, persistent=False)

    def begin(
        self,
        hardness: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
        groups: torch.Tensor | None,
    ) -> None:
        """Set up the solver for the current operator.

        Parameters
        ----------
        hardness : torch.Tensor, float64, shape (N,), eV/e²
        positions, cell : torch.Tensor, float64, shapes (N, 3) and (3, 3), Å
        groups : torch.Tensor or None, int64, shape (N,)
            Group of each atom, if the charges of groups are constrained, or its replica.
        """
        with torch.no_grad():
            self.kernel = self.operator.matrix()
            hard = torch.diag_embed(hardness.reshape(self.kernel.shape[:-1]))
        self.factorize(self.kernel + hard, groups)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        return block_product(self.kernel, charges)

    def equilibrate(self, effective_chi: torch.Tensor, total_charge: torch.Tensor) -> Equilibration:
        """Charges for electronegativities, shape (N,), eV/e, and constrained charges, e."""
        return self.solve(effective_chi, total_charge)

    def adjoint(self, gradient: torch.Tensor) -> Equilibration:
        """Adjoint charges for a gradient by the charges, shape (N,), eV/e."""
        return self.solve(-gradient, torch.zeros_like(gradient[0]))

    def finish(self, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Drop the matrices; nothing is reused."""
        self.forget()

    def forget(self) -> None:
        """Drop the matrices."""
        self.kernel = self.kernel[:0]
        self.matrix, self.factors = self.kernel, self.kernel


class IterativeEquilibration(IterativeSolver):
    """Charges and adjoint charges of one structure by warm-started conjugate gradients.

    Parameters
    ----------
    operator : CoulombOperator
    preconditioner : torch.nn.Module
        One of :mod:`openmm_nequiplr.equilibration.preconditioning`; reused between structures.
    history
        Object with two :class:`openmm_nequiplr.equilibration.ChargePredictor`, ``charges`` and
        ``adjoint``. ``begin(positions, cell)`` is called for each structure, ``advance(charges,
        adjoint)`` with its results, and ``reset()`` after a failure. ``known_cell(cell)`` returns
        the cell on the device where it is cheapest to read.
    options : SolverOptions
    """

    def __init__(
        self, operator: Any, preconditioner: torch.nn.Module, history: Any, options: SolverOptions
    ) -> None:
        super().__init__(
            operator,
            torch.zeros(0, dtype=torch.float64),
            tolerance=options.charge_tolerance,
            max_iterations=options.max_iterations,
            preconditioner=preconditioner,
        )
        self.history = history
        self.failure, self.iterations = "", 0

    def begin(
        self,
        hardness: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
        groups: torch.Tensor | None,
    ) -> None:
        """Set up the solver for the operator; arguments as for :class:`DenseEquilibration`."""
        with torch.no_grad():
            self.failure, self.iterations = "", 0
            self.hardness = hardness
            self.hold(groups)
            self.operator.prepare()
            known = self.history.known_cell(cell)
            if not self.preconditioner.fits(hardness.shape[0], known):
                diagonal = positive_diagonal(self.operator.diagonal(), hardness)
                columns = self.operator.low_rank()
                self.preconditioner.make(diagonal, positions, known, groups, columns)
            self.history.begin(positions, cell)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        with torch.no_grad():
            return self.operator.potential(charges)

    def equilibrate(self, effective_chi: torch.Tensor, total_charge: torch.Tensor) -> Equilibration:
        """Charges for electronegativities, shape (N,), eV/e, and constrained charges, e.

        Raises
        ------
        ConvergenceError
            If the iteration does not converge. In TorchScript the reason is stored in ``failure``
            instead, because a frozen graph that raises an error inside a loop crashes.
        """
        history = self.history.charges
        guess = history.predict(effective_chi.shape[0])
        self.unwatched = history.expected if effective_chi.is_cuda else 0
        result = self.forward(effective_chi, total_charge, guess)
        history.report(result.iterations)
        return self._keep(result)

    def adjoint(self, gradient: torch.Tensor) -> Equilibration:
        """Adjoint charges for a gradient by the charges, shape (N,), eV/e."""
        history = self.history.adjoint
        guess = history.predict(gradient.shape[0])
        self.unwatched = history.expected if gradient.is_cuda else 0
        result = self.forward(-gradient, torch.zeros([], dtype=gradient.dtype), guess)
        history.report(result.iterations)
        return self._keep(result)

    def _keep(self, result: Equilibration) -> Equilibration:
        self.iterations = max(self.iterations, result.iterations)
        if len(result.failure) > 0:
            self.failure = result.failure
            if not torch.jit.is_scripting():
                raise ConvergenceError(self.failure)
        return result

    def finish(self, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Store the results, shape (N,), e, for the guesses of the next structure.

        Results that are still to be checked are not stored.
        """
        if len(self.failure) == 0 and not self.deferred:
            self.preconditioner.report(self.iterations)
            self.history.advance(charges, adjoint)

    def forget(self) -> None:
        """Drop all stored data after a failed evaluation."""
        self.preconditioner.reset()
        self.history.reset()
