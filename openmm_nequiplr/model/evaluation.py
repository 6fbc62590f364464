"""Energy, forces and charges for inference: two charge sets instead of a differentiated solve.

The Coulomb part enters through e(Q+Z−w) − e(w) alone
(:mod:`openmm_nequiplr.equilibration.adjoint`; Z are the offsets of a model with effective charges),
so any point-charge code that returns an energy and forces can take it over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..devices import resolve_device
from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..timing import part
from .building import with_lattice_sum
from .memory import ChargeMemory
from .potential import NequIPLRPotential
from .solving import SolverOptions
from .step import (
    Evaluation,
    PointChargeCoulomb,
    SmoothCoulomb,
    Step,
    coulomb_operator,
    equilibration,
    solve_charges,
    to_numpy,
)

__all__ = ["Evaluation", "Evaluator", "PointChargeCoulomb", "SmoothCoulomb"]


class Evaluator:
    """Evaluates one structure at a time, without gradients through the equilibration.

    Parameters
    ----------
    model : NequIPLRPotential
        Moved and cast in place when ``dtype`` or ``device`` is given.
    dtype : torch.dtype, optional
        Of the network.
    device : torch.device or str, optional
    options : SolverOptions, optional
        How charges are solved for. An iterative solver starts from the previous structure, so use
        one evaluator for each run; its results depend on that past within the tolerance. Nothing is
        kept of an evaluation that fails.
    **fields
        Fields of :class:`.solving.SolverOptions` instead of the object.
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        options: SolverOptions | None = None,
        **fields: Any,
    ) -> None:
        where = None if device is None else resolve_device(device)
        self.model = model.to(dtype=dtype, device=where).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.options = options or SolverOptions(**fields)
        self.memory = ChargeMemory(self.model, self.options.mesh_accuracy)

    def iterative(self, count: int, periodic: bool) -> bool:
        """Whether so many atoms are solved for iteratively; their graph needs no lattice sum."""
        if not self.model.config.equilibration:
            return False
        return self.options.iterative(self.model.config, count, periodic)

    def _prepare(self, graph: AtomicGraph) -> tuple[AtomicGraph, ChargeMemory | None]:
        """The graph with all that its solver needs, and what an iterative one remembers."""
        _check_single(graph)
        if self.iterative(graph.num_atoms, graph.periodic[0]):
            return graph, self.memory
        return with_lattice_sum(self.model.config, graph), None

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Leaves nothing of an evaluation behind that fails."""
        try:
            yield
        except BaseException:
            self.memory.reset()
            raise

    def charges(self, graph: AtomicGraph) -> tuple[np.ndarray, np.ndarray]:
        """Charges, shape (N,), e, and electronegativities, shape (N,), eV/e: the cheap half."""
        graph, memory = self._prepare(graph)
        if not self.model.config.equilibration:
            return np.zeros(graph.num_atoms), np.zeros(graph.num_atoms)
        with self._forgetting(), torch.no_grad():
            model = self.model
            chi = model.electronegativity(graph, *model.edge_features(graph.edge_vectors()))
            operator = coulomb_operator(model, graph, graph.positions, graph.cell, memory)
            solver = equilibration(
                graph, operator, model.separate_hardness(graph), self.options, memory
            )
            result = solve_charges(solver, chi, model.offsets(graph), graph.total_charge)
        return to_numpy(result.charges), to_numpy(chi)

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
            If the graph holds several structures, the combination is not possible, or the results
            are not finite.
        ConvergenceError
            If the equilibration fails.
        """
        with self._forgetting():
            evaluation = self._evaluate(graph, compute_forces, compute_stress, point_charge_coulomb)
            _check_finite(evaluation)
        return evaluation

    def _evaluate(
        self,
        graph: AtomicGraph,
        compute_forces: bool,
        compute_stress: bool,
        point_charge_coulomb: PointChargeCoulomb | None,
    ) -> Evaluation:
        graph, memory = self._prepare(graph)
        config = self.model.config
        if not config.equilibration or (config.legacy_periodic and graph.periodic[0]):
            return self._differentiated(graph, compute_forces, compute_stress, point_charge_coulomb)
        if compute_stress and point_charge_coulomb is not None:
            raise InputError(
                describe("compute_stress", True, "False when point_charge_coulomb is given")
            )
        step = Step(self.model, graph, compute_stress, self.options, memory)
        step.equilibrate()
        with part("Coulomb"):
            coulomb = step.coulomb_energy(point_charge_coulomb)
        return step.finish(coulomb, compute_forces)

    def _differentiated(
        self,
        graph: AtomicGraph,
        compute_forces: bool,
        compute_stress: bool,
        point_charge_coulomb: PointChargeCoulomb | None,
    ) -> Evaluation:
        """The slow twin: no solve to differentiate, or an A that is not symmetric.

        The former are models without equilibration, the latter the published periodic code.
        """
        if point_charge_coulomb is not None:
            expected = "None: this model has no Coulomb sum to hand over"
            raise InputError(describe("point_charge_coulomb", "a callable", expected))
        output = self.model(graph, compute_forces, compute_stress)
        short, electrostatic = output.energy_short_range, output.energy_electrostatic
        return Evaluation(
            energy=float(output.energy),
            forces=None if output.forces is None else to_numpy(output.forces),
            stress=None if output.stress is None else to_numpy(output.stress[0]),
            charges=to_numpy(output.charges),
            adjoint=np.zeros(graph.num_atoms),
            electronegativity=to_numpy(output.electronegativity),
            dipole=to_numpy(output.dipole[0]),
            parts={"short_range": float(short), "coulomb": float(electrostatic)},
        )


def _check_single(graph: AtomicGraph) -> None:
    if graph.num_graphs != 1:
        raise InputError(describe("graph", f"{graph.num_graphs} structures", "one structure"))


def _check_finite(evaluation: Evaluation) -> None:
    total = evaluation.energy
    if evaluation.forces is not None:
        total += float(evaluation.forces.sum())
    if not math.isfinite(total):
        raise InputError(
            "positions: expected a geometry that the model can evaluate, got a non-finite "
            "energy or force; atoms on top of one another are the usual cause"
        )
