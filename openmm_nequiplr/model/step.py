"""One evaluation, step by step; :mod:`.evaluation` says what it is good for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch

from ..electrostatics import CoulombOperator, MatrixCoulomb
from ..equilibration import (
    Equilibration,
    JacobiPreconditioner,
    effective_chi,
    lagrangian_weights,
)
from ..graph import AtomicGraph
from ..timing import part
from ..units import COULOMB_CONSTANT
from .memory import ChargeMemory
from .potential import NequIPLRPotential
from .solving import DenseEquilibration, IterativeEquilibration, SolverOptions
from .strain import strained, stress_from_strain

#: ``f(positions, cell, charges) -> (energy, forces)`` is the Coulomb sum of point charges with the
#: physical constant; in a cell the tin-foil Ewald sum with a uniform neutralising background.
#: Shapes (N, 3) Å, (3, 3) Å or None, (N,) e; eV and (N, 3) eV/Å.
PointChargeCoulomb = Callable[
    [np.ndarray, "np.ndarray | None", np.ndarray], tuple[float, np.ndarray]
]


@runtime_checkable
class SmoothCoulomb(Protocol):
    """A :data:`PointChargeCoulomb` that can leave out the pairs of a periodic sum.

    Attributes
    ----------
    cutoff : float or None, Å
        Of its own direct-space sum, where one was asked for.
    """

    cutoff: float | None

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


@dataclass(frozen=True)
class _Coulomb:
    """e(Q+Z−w) − e(w) as a differentiable tensor, with the forces of what came from outside."""

    energy: torch.Tensor
    external_forces: np.ndarray | None


class Step:
    """One evaluation: holds the tensors that its phases share."""

    def __init__(
        self,
        model: NequIPLRPotential,
        graph: AtomicGraph,
        with_stress: bool,
        options: SolverOptions,
        memory: ChargeMemory | None,
    ) -> None:
        self.model, self.graph, self.with_stress = model, graph, with_stress
        self.options, self.memory = options, memory
        self.full = model.config.electrostatic_energy == "qeq"
        self.positions = graph.positions.detach().clone().requires_grad_()
        self.strain = torch.zeros_like(graph.cell).requires_grad_(with_stress)
        self.moved, self.cell = self.positions, graph.cell
        with torch.enable_grad(), part("stage 1"):
            if with_stress:
                self.moved, self.cell = strained(
                    self.positions, graph.cell, self.strain, graph.batch
                )
            vectors = graph.edge_vectors(self.moved, self.cell)
            self.length, self.harmonics = model.edge_features(vectors)
            self.chi, self.features = model.first_stage(graph, self.length, self.harmonics)
        with torch.enable_grad(), part("Coulomb operator"):
            self.operator = coulomb_operator(model, graph, self.moved, self.cell, memory)

    def equilibrate(self) -> None:
        """Charges Q, the energy stage, and the adjoint charges w."""
        graph = self.graph
        with torch.no_grad(), part("equilibration"):
            self.hardness = self.model.separate_hardness(graph)
            solver = equilibration(graph, self.operator, self.hardness, self.options, self.memory)
            self.offsets = self.model.offsets(graph)
            first = solve_charges(solver, self.chi.detach(), self.offsets, graph.total_charge)
        self.charges = first.charges
        with torch.enable_grad(), part("stage 2 and its gradient"):
            charges = self.charges.detach().requires_grad_()
            # one pass backwards for all; the geometry takes its part of the slopes in ``finish``
            sources = [v for v in (self.length, self.harmonics, self.features) if v is not None]
            leaves = [v.detach().requires_grad_(v.requires_grad) for v in sources]
            short_range = self.model.short_range_energy(graph, charges, *leaves).squeeze(0)
            wanted = [charges, *(leaf for leaf in leaves if leaf.requires_grad)]
            gradient, *slopes = torch.autograd.grad(short_range, wanted, allow_unused=True)
        self.short_range = short_range.detach()
        sources = [v for v in sources if v.requires_grad]
        self.slopes = [pair for pair in zip(sources, slopes, strict=True) if pair[1] is not None]
        with torch.no_grad(), part("adjoint"):
            if not self.full:
                gradient = gradient + solver.potential(self.charges + self.offsets)
            second = solver.adjoint(gradient)
            solver.finish(first.charges, second.charges)
        self.adjoint = second.charges
        self.iterations = first.iterations, second.iterations
        self.residual = max(first.residual, second.residual)
        self.lagrangian_charges = self.charges + self.offsets - self.adjoint

    def coulomb_energy(self, point_charges: PointChargeCoulomb | None) -> _Coulomb:
        operator = self.operator
        if point_charges is None:
            with torch.enable_grad():
                charges = self.lagrangian_charges
                return _Coulomb(operator.energy_difference(charges, self.adjoint), None)
        charges, subtracted = self.lagrangian_charges, self.adjoint
        # pairs are summed here where the point-charge code can leave them out
        eta, cutoff = operator.smoothing_width, getattr(point_charges, "cutoff", None)
        split = eta > 0.0 and isinstance(point_charges, SmoothCoulomb)
        if split and (cutoff is None or not operator.lists_screening):
            smooth = cast(SmoothCoulomb, point_charges).smooth
            energy, forces = self._outside(lambda x, cell, q: smooth(x, cell, q, eta))
            with torch.enable_grad():
                correction = operator.rest_difference(charges, subtracted)
        else:
            energy, forces = self._outside(point_charges)
            with torch.enable_grad():
                correction = operator.screening().energy_difference(charges, subtracted)
        return _Coulomb(correction + energy, forces)

    def _outside(
        self, coulomb: Callable[..., tuple[float, np.ndarray]]
    ) -> tuple[float, np.ndarray]:
        """Energy and forces of the charges Q+Z−w less those of w, summed by other code."""
        ratio = self.model.config.coulomb_constant / COULOMB_CONSTANT
        positions = to_numpy(self.graph.positions)
        cell = to_numpy(self.graph.cell[0]) if self.graph.periodic[0] else None
        total, forces = 0.0, np.zeros_like(positions)
        for sign, charges in ((ratio, self.lagrangian_charges), (-ratio, self.adjoint)):
            if bool(charges.any()):
                energy, force = coulomb(positions, cell, to_numpy(charges))
                total += sign * float(energy)
                forces += sign * np.asarray(force)
        return total, forces

    def finish(self, coulomb: _Coulomb, compute_forces: bool) -> Evaluation:
        """Put the Lagrangian together and differentiate it at fixed Q and w."""
        with torch.enable_grad(), part("gradient"):
            weights = lagrangian_weights(self.charges, self.adjoint, full_functional=self.full)
            energy = self.short_range + (weights * self.chi).sum()
            energy = energy + coulomb.energy
            gradients: tuple[torch.Tensor | None, ...] = (None, None)
            wanted = [self.positions] + ([self.strain] if self.with_stress else [])
            if compute_forces or self.with_stress:
                values, slopes = zip((energy, None), *self.slopes, strict=True)
                gradients = torch.autograd.grad(values, wanted, slopes, allow_unused=True)
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
            forces = forces if gradient is None else -to_numpy(gradient)
            if coulomb.external_forces is not None:
                forces = forces + coulomb.external_forces
        stress = None
        if self.with_stress:
            slope = gradients[1]
            slope = torch.zeros_like(self.strain) if slope is None else slope
            stress = to_numpy(stress_from_strain(slope, self.graph.cell, self.graph.periodic)[0])
        return Evaluation(
            energy=total + reference,
            forces=forces,
            stress=stress,
            charges=to_numpy(self.charges),
            adjoint=to_numpy(self.adjoint),
            electronegativity=to_numpy(self.chi),
            dipole=to_numpy(self.charges @ self.graph.positions),
            parts=parts,
            residual=self.residual,
            iterations=self.iterations,
        )


def coulomb_operator(
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


def equilibration(
    graph: AtomicGraph,
    operator: CoulombOperator,
    hardness: torch.Tensor,
    options: SolverOptions,
    memory: ChargeMemory | None,
) -> DenseEquilibration | IterativeEquilibration:
    """Dense without a memory, iterative with one."""
    solver: DenseEquilibration | IterativeEquilibration
    if memory is None:
        solver = DenseEquilibration(operator)
    elif graph.periodic[0]:
        history = memory.guesses(graph)
        solver = IterativeEquilibration(operator, memory.preconditioner, history, options)
    else:  # K as a matrix: its products are faster than those over pairs
        dense = MatrixCoulomb(operator.matrix().detach())
        history = memory.guesses(graph)
        solver = IterativeEquilibration(dense, JacobiPreconditioner(), history, options)
    solver.begin(hardness, graph.positions, graph.cell[0])
    return solver


def solve_charges(
    solver: DenseEquilibration | IterativeEquilibration,
    chi: torch.Tensor,
    offsets: torch.Tensor,
    total_charge: torch.Tensor,
) -> Equilibration:
    """Charges for electronegativities and charge offsets, both of shape (N,)."""
    known = solver.potential(offsets) if bool(offsets.any()) else None
    return solver.equilibrate(effective_chi(chi, known), total_charge)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float64).cpu().numpy()
