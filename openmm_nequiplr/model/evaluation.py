"""Energy, forces and charges for inference: two charge sets instead of a differentiated solve.

The Coulomb part enters through e(Q+Z−w) − e(w) alone
(:mod:`openmm_nequiplr.equilibration.adjoint`; Z are the offsets of a model with effective charges),
so any point-charge code that returns an energy and forces can take it over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from ..electrostatics import CoulombOperator
from ..equilibration import DenseSolver, adjoint_charges, lagrangian_weights
from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..timing import part
from ..units import COULOMB_CONSTANT
from .potential import NequIPLRPotential
from .strain import strained, stress_from_strain

#: ``f(positions, cell, charges) -> (energy, forces)`` is the Coulomb sum of point charges with the
#: physical constant; in a cell the tin-foil Ewald sum with a uniform neutralising background.
#: Shapes (N, 3) Å, (3, 3) Å or None, (N,) e; eV and (N, 3) eV/Å.
PointChargeCoulomb = Callable[
    [np.ndarray, "np.ndarray | None", np.ndarray], tuple[float, np.ndarray]
]


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


class Evaluator:
    """Evaluates one structure at a time, without gradients through the equilibration.

    Parameters
    ----------
    model : NequIPLRPotential
        Moved and cast in place when ``dtype`` or ``device`` is given.
    dtype : torch.dtype, optional
        Of the network.
    device : torch.device or str, optional
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.model = model.to(dtype=dtype, device=device).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    def charges(self, graph: AtomicGraph) -> tuple[np.ndarray, np.ndarray]:
        """Charges, shape (N,), e, and electronegativities, shape (N,), eV/e: the cheap half."""
        _check_single(graph)
        with torch.no_grad():
            model = self.model
            chi = model.electronegativity(graph, *model.edge_features(graph.edge_vectors()))
            operator = model.coulomb_operators(graph, graph.positions, graph.cell)[0]
            solver = DenseSolver(operator.matrix() + torch.diag(model.separate_hardness(graph)))
            pushed = chi + operator.potential(model.offsets(graph))
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
        _check_single(graph)
        if self.model.config.legacy_periodic and graph.periodic[0]:
            return self._legacy(graph, compute_forces, compute_stress, point_charge_coulomb)
        if compute_stress and point_charge_coulomb is not None:
            raise InputError(
                describe("compute_stress", True, "False when point_charge_coulomb is given")
            )
        step = _Step(self.model, graph, compute_stress)
        step.equilibrate()
        with part("Coulomb"):
            coulomb = step.coulomb_energies(point_charge_coulomb, compute_forces)
        return step.finish(coulomb, compute_forces)

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
    """e(Q+Z−w) and e(w) as differentiable tensors, or as numbers with forces from outside."""

    energy: torch.Tensor
    of_adjoint: torch.Tensor
    external_forces: np.ndarray | None


class _Step:
    """One evaluation: holds the tensors that its phases share."""

    def __init__(self, model: NequIPLRPotential, graph: AtomicGraph, with_stress: bool) -> None:
        self.model, self.graph, self.with_stress = model, graph, with_stress
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
            self.chi = model.electronegativity(graph, self.length, self.harmonics)

    def operator(self, positions: torch.Tensor, cell: torch.Tensor) -> CoulombOperator:
        return self.model.coulomb_operators(self.graph, positions, cell)[0]

    def equilibrate(self) -> None:
        """Charges Q, the energy stage, and the adjoint charges w."""
        graph = self.graph
        with torch.no_grad(), part("equilibration"):
            kernel = self.operator(graph.positions, graph.cell).matrix()
            self.hardness = self.model.separate_hardness(graph)
            solver = DenseSolver(kernel + torch.diag(self.hardness))
            self.offsets = self.model.offsets(graph)
            first = solver.solve(self.chi + kernel @ self.offsets, graph.total_charge)
        self.charges = first.charges
        with torch.enable_grad(), part("stage 2 and its gradient"):
            charges = self.charges.detach().requires_grad_()
            short_range = self.model.short_range_energy(
                graph, charges, self.length, self.harmonics
            ).squeeze(0)
            # one pass backwards for all; the geometry takes its part of the slopes in ``finish``
            edges = [value for value in (self.length, self.harmonics) if value.requires_grad]
            wanted = [charges, *edges]
            gradient, *slopes = torch.autograd.grad(short_range, wanted, allow_unused=True)
        self.short_range = short_range.detach()
        self.slopes = [pair for pair in zip(edges, slopes, strict=True) if pair[1] is not None]
        with part("adjoint"):
            if not self.full:
                gradient = gradient + kernel @ (self.charges + self.offsets)
            second = adjoint_charges(solver, gradient)
        self.adjoint = second.charges
        self.residual = max(first.residual, second.residual)
        self.pure = self.charges + self.offsets - self.adjoint

    def coulomb_energies(
        self, point_charges: PointChargeCoulomb | None, compute_forces: bool
    ) -> _Coulomb:
        if point_charges is None:
            with torch.enable_grad():
                operator = self.operator(self.moved, self.cell)
                return _Coulomb(operator.energy(self.pure), operator.energy(self.adjoint), None)
        ratio = self.model.config.coulomb_constant / COULOMB_CONSTANT
        positions = _numpy(self.graph.positions)
        cell = _numpy(self.graph.cell[0]) if self.graph.periodic[0] else None
        energies, forces = [], np.zeros_like(positions)
        for sign, charges in ((1.0, self.pure), (-1.0, self.adjoint)):
            if not bool(charges.abs().max() > 0):
                energies.append(0.0)
                continue
            energy, force = point_charges(positions, cell, _numpy(charges))
            energies.append(ratio * float(energy))
            forces += sign * ratio * np.asarray(force)
        with torch.enable_grad():
            correction = self.operator(self.moved, self.cell).screening()
            first = correction.energy(self.pure) + energies[0]
            second = correction.energy(self.adjoint) + energies[1]
        return _Coulomb(first, second, forces)

    def finish(self, coulomb: _Coulomb, compute_forces: bool) -> Evaluation:
        """Put the Lagrangian together and differentiate it at fixed Q and w."""
        with torch.enable_grad(), part("gradient"):
            weights = lagrangian_weights(self.charges, self.adjoint, full_functional=self.full)
            energy = self.short_range + (weights * self.chi).sum()
            energy = energy + coulomb.energy - coulomb.of_adjoint
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
        )


def _check_single(graph: AtomicGraph) -> None:
    if graph.num_graphs != 1:
        raise InputError(describe("graph", f"{graph.num_graphs} structures", "one structure"))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float64).cpu().numpy()
