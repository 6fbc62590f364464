"""Energy, forces and charges for inference: two charge sets instead of a differentiated solve.

The Coulomb part enters through e(Q+Z−w) − e(w) alone
(:mod:`openmm_nequiplr.equilibration.adjoint`; Z are the offsets of a model with effective charges),
so any point-charge code that returns an energy and forces can take it over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from ..electrostatics import CoulombOperator, EnergyFunction, MeshCoulomb
from ..equilibration import lagrangian_weights
from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..units import COULOMB_CONSTANT
from .building import with_lattice_sum
from .potential import NequIPLRPotential
from .solving import (
    DEFAULT_CHARGE_TOLERANCE,
    DEFAULT_MAX_ITERATIONS,
    ChargeMemory,
    DenseEquilibration,
    IterativeEquilibration,
    SolverOptions,
)
from .strain import strained, stress_from_strain

#: ``f(positions, cell, charges) -> (energy, forces)`` is the Coulomb sum of point charges with the
#: physical constant; in a cell the tin-foil Ewald sum with a uniform neutralising background.
#: Shapes (N, 3) Å, (3, 3) Å or None, (N,) e; eV and (N, 3) eV/Å.
PointChargeCoulomb = Callable[
    [np.ndarray, "np.ndarray | None", np.ndarray], tuple[float, np.ndarray]
]


@runtime_checkable
class SmoothCoulomb(Protocol):
    """A :data:`PointChargeCoulomb` that can leave out the pairs of a periodic sum."""

    def smooth(
        self, positions: np.ndarray, cell: np.ndarray, charges: np.ndarray, eta: float
    ) -> tuple[float, np.ndarray]:
        """The sum less Σ k_e q_i q_j erfc(r/√2η)/r of all pairs and images, η in Å."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Results for one structure of N atoms, as float64 NumPy arrays.

    Parameters
    ----------
    energy : float, eV
    forces : numpy.ndarray or None, shape (N, 3), eV/Å
    stress : numpy.ndarray or None, shape (3, 3), eV/Å³
        dE/dε / V.
    charges : numpy.ndarray, shape (N,), e
    adjoint : numpy.ndarray, shape (N,), e
        The adjoint charges w.
    electronegativity : numpy.ndarray, shape (N,), eV/e
    dipole : numpy.ndarray, shape (3,), e Å
        Σ q r with the positions as given; in a cell it depends on which images they are.
    parts : dict
        "short_range", "electronegativity" (χ·Q), "hardness" (½JQ²) and "coulomb", eV; they sum to
        the energy.
    residual : float, eV/e
        Largest residual of the two solves.
    iterations : tuple of 2 int
        Of the solves for the charges and for the adjoint charges; 0 where they are dense.
    """

    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None
    charges: np.ndarray
    adjoint: np.ndarray
    electronegativity: np.ndarray
    dipole: np.ndarray
    parts: dict[str, float] = field(default_factory=dict)
    residual: float = 0.0
    iterations: tuple[int, int] = (0, 0)


class Evaluator:
    """Evaluates one structure at a time, without gradients through the equilibration.

    Parameters
    ----------
    model : NequIPLRPotential
        Moved and cast in place when ``dtype`` or ``device`` is given.
    dtype : torch.dtype, optional
        Of the network.
    device : torch.device or str, optional
    solver, charge_tolerance, max_iterations
        How charges are solved for, see :class:`.solving.SolverOptions`. An iterative solver goes
        on from the structure before, so use one evaluator for each run; its results depend on that
        past within the tolerance.
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        *,
        solver: str = "auto",
        charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE,
        max_iterations: int = DEFAULT_MAX_ITERATIONS,
    ) -> None:
        self.model = model.to(dtype=dtype, device=device).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.options = SolverOptions(solver, charge_tolerance, max_iterations)
        self.memory = ChargeMemory(self.model, self.options)

    def iterative(self, count: int, periodic: bool) -> bool:
        """Whether so many atoms are solved for iteratively; their graph needs no lattice sum."""
        return self.options.iterative(self.model.config, count, periodic)

    def _prepare(self, graph: AtomicGraph) -> tuple[AtomicGraph, ChargeMemory | None]:
        """The graph with all that its solver needs, and what an iterative one remembers."""
        _check_single(graph)
        if self.iterative(graph.num_atoms, graph.periodic[0]):
            return graph, self.memory
        return with_lattice_sum(self.model.config, graph), None

    def charges(self, graph: AtomicGraph) -> tuple[np.ndarray, np.ndarray]:
        """Charges, shape (N,), e, and electronegativities, shape (N,), eV/e: the cheap half."""
        graph, memory = self._prepare(graph)
        with torch.no_grad():
            model = self.model
            chi = model.electronegativity(graph, *model.edge_features(graph.edge_vectors()))
            operator = _operator(model, graph, graph.positions, graph.cell, memory)
            solver = _equilibration(graph, operator, model.separate_hardness(graph), memory)
            pushed = chi + solver.potential(model.offsets(graph))
            result = solver.solve(pushed, graph.total_charge)
        return _numpy(result.charges), _numpy(chi)

    def __call__(
        self,
        graph: AtomicGraph,
        compute_forces: bool = True,
        compute_stress: bool = False,
        point_charge_coulomb: PointChargeCoulomb | None = None,
    ) -> Evaluation:
        """Evaluate one structure.

        Parameters
        ----------
        graph : AtomicGraph
            Of one structure.
        compute_forces, compute_stress : bool
        point_charge_coulomb : callable, optional
            Takes over the point-charge sums (see :data:`PointChargeCoulomb`); without it they are
            done here. It gives no stress.

        Raises
        ------
        InputError
            If the graph holds several structures, or the combination is not possible.
        ConvergenceError
            If the equilibration fails.
        """
        graph, memory = self._prepare(graph)
        if self.model.config.legacy_periodic and graph.periodic[0]:
            return self._legacy(graph, compute_forces, compute_stress, point_charge_coulomb)
        if compute_stress and point_charge_coulomb is not None:
            raise InputError(
                describe("compute_stress", True, "False when point_charge_coulomb is given")
            )
        step = _Step(self.model, graph, compute_stress, memory)
        step.equilibrate()
        return step.finish(step.coulomb_energy(point_charge_coulomb), compute_forces)

    def _legacy(
        self,
        graph: AtomicGraph,
        compute_forces: bool,
        compute_stress: bool,
        point_charge_coulomb: PointChargeCoulomb | None,
    ) -> Evaluation:
        """The published periodic code: its A is not symmetric, so differentiate the solve."""
        if point_charge_coulomb is not None:
            expected = "None: a legacy_periodic model has no Coulomb sum to hand over"
            raise InputError(describe("point_charge_coulomb", "a callable", expected))
        output = self.model(graph, compute_forces, compute_stress)
        short, electrostatic = output.energy_short_range, output.energy_electrostatic
        return Evaluation(
            energy=float(output.energy),
            forces=None if output.forces is None else _numpy(output.forces),
            stress=None if output.stress is None else _numpy(output.stress[0]),
            charges=_numpy(output.charges),
            adjoint=np.zeros(graph.num_atoms),
            electronegativity=_numpy(output.electronegativity),
            dipole=_numpy(output.dipole[0]),
            parts={"short_range": float(short), "coulomb": float(electrostatic)},
        )


@dataclass(frozen=True)
class _Coulomb:
    """e(Q+Z−w) − e(w) as a differentiable tensor, with the forces of what came from outside."""

    energy: torch.Tensor
    external_forces: np.ndarray | None


class _Step:
    """One evaluation: holds the tensors that its phases share."""

    def __init__(
        self,
        model: NequIPLRPotential,
        graph: AtomicGraph,
        with_stress: bool,
        memory: ChargeMemory | None,
    ) -> None:
        self.model, self.graph, self.with_stress, self.memory = model, graph, with_stress, memory
        self.full = model.config.electrostatic_energy == "qeq"
        self.positions = graph.positions.detach().clone().requires_grad_()
        self.strain = torch.zeros_like(graph.cell).requires_grad_(with_stress)
        self.moved, self.cell = self.positions, graph.cell
        with torch.enable_grad():
            if with_stress:
                self.moved, self.cell = strained(
                    self.positions, graph.cell, self.strain, graph.batch
                )
            vectors = graph.edge_vectors(self.moved, self.cell)
            self.length, self.harmonics = model.edge_features(vectors)
            self.chi = model.electronegativity(graph, self.length, self.harmonics)
            self.operator = _operator(model, graph, self.moved, self.cell, memory)

    def equilibrate(self) -> None:
        """Charges Q, the energy stage, and the adjoint charges w."""
        graph = self.graph
        with torch.no_grad():
            self.hardness = self.model.separate_hardness(graph)
            solver = _equilibration(graph, self.operator, self.hardness, self.memory)
            self.offsets = self.model.offsets(graph)
            pushed = self.chi.detach()
            if bool(self.offsets.any()):
                pushed = pushed + solver.potential(self.offsets)
            first = solver.solve(pushed, graph.total_charge)
        self.charges = first.charges
        with torch.enable_grad():
            charges = self.charges.detach().requires_grad_()
            self.short_range = self.model.short_range_energy(
                graph, charges, self.length, self.harmonics
            ).squeeze(0)
            (gradient,) = torch.autograd.grad(self.short_range, charges, retain_graph=True)
        if not self.full:
            gradient = gradient + solver.potential(self.charges + self.offsets)
        second = solver.adjoint(gradient)
        solver.finish()
        self.adjoint = second.charges
        self.iterations = first.iterations, second.iterations
        self.residual = max(first.residual, second.residual)
        self.pure = self.charges + self.offsets - self.adjoint

    def coulomb_energy(self, point_charges: PointChargeCoulomb | None) -> _Coulomb:
        operator = self.operator
        if point_charges is None:
            with torch.enable_grad():
                return _Coulomb(self._difference(operator), None)
        # pairs are summed here where the point-charge code can leave them out
        if isinstance(operator, MeshCoulomb) and isinstance(point_charges, SmoothCoulomb):
            eta, smooth = operator.smoothing_width, point_charges.smooth
            energy, forces = self._outside(lambda *structure: smooth(*structure, eta))
            with torch.enable_grad():
                correction = operator.pair_difference(self.pure, self.adjoint)
        else:
            energy, forces = self._outside(point_charges)
            with torch.enable_grad():
                correction = self._difference(operator.screening())
        return _Coulomb(correction + energy, forces)

    def _outside(
        self, coulomb: Callable[..., tuple[float, np.ndarray]]
    ) -> tuple[float, np.ndarray]:
        """Energy and forces of the charges Q+Z−w less those of w, summed by other code."""
        ratio = self.model.config.coulomb_constant / COULOMB_CONSTANT
        positions = _numpy(self.graph.positions)
        cell = _numpy(self.graph.cell[0]) if self.graph.periodic[0] else None
        total, forces = 0.0, np.zeros_like(positions)
        for sign, charges in ((ratio, self.pure), (-ratio, self.adjoint)):
            if bool(charges.any()):
                energy, force = coulomb(positions, cell, _numpy(charges))
                total += sign * float(energy)
                forces += sign * np.asarray(force)
        return total, forces

    def _difference(self, source: EnergyFunction) -> torch.Tensor:
        if isinstance(source, MeshCoulomb):
            return source.energy_difference(self.pure, self.adjoint)
        return source.energy(self.pure) - source.energy(self.adjoint)

    def finish(self, coulomb: _Coulomb, compute_forces: bool) -> Evaluation:
        """Put the Lagrangian together and differentiate it at fixed Q and w."""
        with torch.enable_grad():
            weights = lagrangian_weights(self.charges, self.adjoint, full_functional=self.full)
            energy = self.short_range + (weights * self.chi).sum()
            energy = energy + coulomb.energy
            gradients: tuple[torch.Tensor | None, ...] = (None, None)
            wanted = [self.positions] + ([self.strain] if self.with_stress else [])
            if compute_forces or self.with_stress:
                gradients = torch.autograd.grad(energy, wanted, allow_unused=True)
        return self._results(energy.detach(), gradients, coulomb, compute_forces)

    def _results(
        self,
        energy: torch.Tensor,
        gradients: tuple[torch.Tensor | None, ...],
        coulomb: _Coulomb,
        compute_forces: bool,
    ) -> Evaluation:
        q, w = self.charges, self.adjoint
        half_jq = float((0.5 * self.hardness * q * q).sum())
        half_jv = float((0.5 * self.hardness * ((q - w) ** 2 - w * w)).sum())
        # e(v) = ½ vᵀAv holds ½Jv², which the Coulomb sums do not
        total = float(energy) + half_jv - (0.0 if self.full else half_jq)
        reference = float(self.model.reference_energy(self.graph))
        parts = {"short_range": float(self.short_range.detach())}
        if self.full:
            parts["electronegativity"] = float((self.charges * self.chi.detach()).sum())
            parts["hardness"] = half_jq
        parts["coulomb"] = total - sum(parts.values())
        parts["short_range"] += reference
        forces = None
        if compute_forces:
            gradient = gradients[0]
            forces = np.zeros((self.graph.num_atoms, 3))
            forces = forces if gradient is None else -_numpy(gradient)
            if coulomb.external_forces is not None:
                forces = forces + coulomb.external_forces
        stress = None
        if self.with_stress:
            slope = gradients[1]
            slope = torch.zeros_like(self.strain) if slope is None else slope
            stress = _numpy(stress_from_strain(slope, self.graph.cell, self.graph.periodic)[0])
        return Evaluation(
            energy=total + reference,
            forces=forces,
            stress=stress,
            charges=_numpy(self.charges),
            adjoint=_numpy(self.adjoint),
            electronegativity=_numpy(self.chi),
            dipole=_numpy(self.charges @ self.graph.positions),
            parts=parts,
            residual=self.residual,
            iterations=self.iterations,
        )


def _operator(
    model: NequIPLRPotential,
    graph: AtomicGraph,
    positions: torch.Tensor,
    cell: torch.Tensor,
    memory: ChargeMemory | None,
) -> CoulombOperator:
    """The Coulomb operator at positions and cell that may carry gradients."""
    if memory is not None and graph.periodic[0]:
        return memory.mesh(graph, positions, cell[0])
    return model.coulomb_operators(graph, positions, cell)[0]


def _equilibration(
    graph: AtomicGraph,
    operator: CoulombOperator,
    hardness: torch.Tensor,
    memory: ChargeMemory | None,
) -> DenseEquilibration | IterativeEquilibration:
    if memory is None:
        return DenseEquilibration(operator, hardness)
    return IterativeEquilibration(memory, graph, operator, hardness)


def _check_single(graph: AtomicGraph) -> None:
    if graph.num_graphs != 1:
        raise InputError(describe("graph", f"{graph.num_graphs} structures", "one structure"))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float64).cpu().numpy()
