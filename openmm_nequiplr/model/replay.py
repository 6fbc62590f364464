"""Evaluations on a GPU that repeat the recorded kernels of an earlier one.

Between two searches for neighbours, the evaluations of a simulation launch the same kernels on the
same tensors; only the positions and the previous charges differ. Launching hundreds of kernels from
Python takes much longer than running them, so they are recorded (:mod:`..recording`) and launched
as a whole. A recording contains a fixed number of solver iterations, and measures how far the atoms
have moved. If the iterations or the lists of neighbours do not suffice, its results are discarded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ..equilibration.iterative import judged
from ..errors import first_line, notify
from ..graph import AtomicGraph
from ..recording import Recording
from ..verlet import Reach
from .inference import Results
from .memory import LONGEST_STEP, ChargeMemory, Track
from .numpy_evaluation import Collected, to_numpy
from .output import Evaluation
from .solving import SolverOptions

# A recording has as many iterations as the hardest of so many last solves needed, without those
# at the begin of a sequence.
_REMEMBERED = 10
# It is made again if all of them needed so many iterations fewer.
_SPARE = 2

# Largest relative difference of forces and charges between a replay and an ordinary evaluation,
# whose solvers start from other charges.
_SAME = 1e-2
# Root mean squares that are taken for zero in this comparison, eV/Å and e.
_NOTHING = {"forces": 1e-2, "charges": 1e-3}

#: Function that evaluates a graph and returns its results and tensors, see :class:`Replays`.
Function = Callable[[AtomicGraph, torch.Tensor], tuple[Collected, Results]]


class _Moved(NamedTuple):
    """Positions from which a recording measures displacements.

    Parameters
    ----------
    origins : torch.Tensor, float64, shape (3, N, 3), Å
        Positions at the searches for edges and for the pairs of the mesh, and those of the
        evaluation before.
    allowed : tuple of 3 float, Å
        Largest displacements from them.
    """

    origins: torch.Tensor
    allowed: tuple[float, float, float]

    def farthest(self, positions: torch.Tensor) -> torch.Tensor:
        """Largest displacements, shape (3,), Å; a common translation changes no edge."""
        moved = positions - self.origins
        moved[0] -= moved[0].mean(dim=0)
        return torch.linalg.vector_norm(moved, dim=2).amax(dim=1)


class _Recorded(NamedTuple):
    """Tensors that a recording returns.

    Parameters
    ----------
    collected : Collected
        Its values are followed by the displacements and the records of the two solves.
    charges, adjoint : torch.Tensor, float64, shape (N,), e
    records : tuple of 2 int
        Lengths of the records.
    """

    collected: Collected
    charges: torch.Tensor
    adjoint: torch.Tensor
    records: tuple[int, int]


class Replays:
    """Recorded evaluations of one evaluator.

    An evaluation is recorded when a structure shares all tensors but the positions with the one
    before, and replayed as long as the structures do.

    Parameters
    ----------
    memory : ChargeMemory
    options : SolverOptions
    """

    def __init__(self, memory: ChargeMemory, options: SolverOptions) -> None:
        self.memory, self.options = memory, options
        #: Number of replayed evaluations.
        self.count = 0
        #: Whether a replay has been compared with an evaluation of the same structure.
        self.trusted = False
        self._works, self._typical, self._failures = True, False, 0
        self._iterations: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self.reset()

    def __getstate__(self) -> dict[str, object]:
        """A copy records anew."""
        nothing = dict.fromkeys(("_graph", "_positions", "_moved", "_recording", "_before"))
        return {**self.__dict__, **nothing, "_key": [], "_modules": []}

    def reset(self) -> None:
        """Drop the recording."""
        self._key: list[object] = []
        self._modules: list[torch.nn.Module] = []
        self._scale, self._state = 1.0, list[tuple[int, int]]()
        self._before: np.ndarray | None = None
        self._graph: AtomicGraph | None = None
        self._positions: torch.Tensor | None = None
        self._moved: _Moved | None = None
        self._recording: Recording[_Recorded] | None = None

    def again(self, positions: np.ndarray, scale: float) -> Evaluation | None:
        """Evaluate the structure of the last replay at other positions, shape (N, 3), Å.

        Returns
        -------
        Evaluation or None
            None if something has changed, or the atoms have moved too far.
        """
        graph, track, moved = self._graph, self.memory.track, self._moved
        if graph is None or track is None or moved is None or not self.trusted:
            return None
        if not self._same(graph, scale, track):
            return None
        assert self._positions is not None
        self._positions.copy_(torch.from_numpy(np.ascontiguousarray(positions)))
        return self._replayed(track, positions)

    def __call__(self, graph: AtomicGraph, scale: float, function: Function) -> Evaluation | None:
        """Evaluate a structure by a recording, if that is possible.

        Parameters
        ----------
        graph : AtomicGraph
            One structure, on a GPU.
        scale : float
            Factor on the electrostatic energy.
        function : callable
            Evaluates a graph, with the number of solver iterations that the predictors of charges
            expect, and without waiting for the GPU. A given tensor and the records of the solvers
            follow the results.
        """
        self._typical = False
        if not self._works or not self.memory.unchanged(graph):
            self.reset()
            return None
        track = self.memory.guesses(graph)
        self._typical = track.settled
        if not (self._same(graph, scale, track) and track.settled and self._iterations):
            self.reset()
            self._modules = list(self.memory.model.modules())
            self._key, self._scale = self._used(graph, track), scale
            self._state = _state(self._weights())
            return None
        if self._recording is None and not self._record(graph, track, function):
            return None
        assert self._positions is not None
        self._positions.copy_(graph.positions)
        return self._replayed(track, graph.on_cpu.positions.numpy())

    def compare(self, found: Evaluation, expected: Evaluation) -> None:
        """Compare a replay with an ordinary evaluation of the same structure, once."""
        self.trusted = True
        for name, nothing in _NOTHING.items():
            one, other = getattr(found, name), getattr(expected, name)
            least = nothing * np.sqrt(len(other))
            error = np.linalg.norm(one - other) / max(np.linalg.norm(other), least)
            if not error <= _SAME:
                self.trusted = False
                self._give_up(f"relative error {error:.3g} of recorded {name}")

    def _give_up(self, reason: str) -> None:
        self._works = False
        self.reset()
        notify(f"device: kernels are launched one by one, which is slower: {reason}")

    def learn(self, evaluation: Evaluation) -> None:
        """Take note of the iterations of an evaluation that was not replayed."""
        if self._typical:
            self._iterations.append(evaluation.iterations)

    def _same(self, graph: AtomicGraph, scale: float, track: Track) -> bool:
        """Whether an evaluation uses the same tensors as the one before, except the positions."""
        key = self._used(graph, track)
        return (
            scale == self._scale
            and len(key) == len(self._key)
            and all(a is b for a, b in zip(key, self._key, strict=True))
            and self._state == _state(self._weights())
        )

    def _weights(self) -> list[torch.Tensor]:
        """Parameters and buffers; listing the modules again would take longer."""
        tables = (each for one in self._modules for each in (one._parameters, one._buffers))
        return [each for table in tables for each in table.values() if each is not None]

    def _used(self, graph: AtomicGraph, track: Track) -> list[object]:
        """Everything that a recording depends on, except the positions."""
        operator, preconditioner = self.memory.operator, self.memory.preconditioner
        key: list[object] = [
            graph.types, graph.edge_index, graph.edge_shift, graph.cell, graph.total_charge,
            graph.electric_field, graph.applied_potential, graph.charge_groups,
            graph.group_charges, graph.outside_potential, operator, preconditioner.inverse,
            preconditioner.lowered, track.charges.past, track.adjoint.past,
            *self._weights(), *(vars(module).get("_frozen") for module in self._modules),
        ]  # fmt: skip
        return key if operator is None else [*key, operator.influence, operator.scale]

    def _record(self, graph: AtomicGraph, track: Track, function: Function) -> bool:
        """Record an evaluation; after a second failure no more, with a note."""
        positions = self._positions = graph.positions.clone()
        moved = self._moved = self._measured(graph, track)
        predictors, most = (track.charges, track.adjoint), zip(*self._iterations, strict=True)
        expected = [predictor.expected for predictor in predictors]
        new = len(self._iterations) < _REMEMBERED  # harder solves are likely to come
        for predictor, counts in zip(predictors, most, strict=True):
            predictor.report(max(counts) + new)

        def evaluated() -> _Recorded:
            found, results = function(graph.placed(positions), moved.farthest(positions))
            first, second = results.records
            return _Recorded(found, results.charges, results.adjoint, (len(first), len(second)))

        try:
            self._recording = Recording(evaluated, graph.positions.device, self)
            self._graph = graph
        except RuntimeError as error:  # such as a lack of memory, which may pass
            self.reset()
            self._failures += 1
            if self._failures > 1:
                self._give_up(first_line(error))
        for predictor, count in zip(predictors, expected, strict=True):
            predictor.expected = count
        return self._recording is not None

    def _measured(self, graph: AtomicGraph, track: Track) -> _Moved:
        """Positions from which displacements are measured, and how far atoms may move."""
        assert track.positions is not None
        self._before = track.positions
        geometry, host = self.memory.geometry, graph.on_cpu
        edges = graph.reach or Reach(host.positions.numpy(), 0.0)
        mesh = Reach(edges.points, np.inf)
        if graph.pbc[0] and geometry is not None:
            mesh = geometry.reach(host.cell[0].numpy())
        origins = torch.from_numpy(np.stack((edges.points, mesh.points, track.positions)))
        allowed = edges.allowed, mesh.allowed, LONGEST_STEP
        return _Moved(origins.to(graph.positions.device), allowed)

    def _replayed(self, track: Track, points: np.ndarray) -> Evaluation | None:
        """Evaluation from a replay, or None if its results are not valid."""
        assert self._recording is not None
        assert self._positions is not None
        assert self._moved is not None
        assert track.positions is not None
        if self._before is not track.positions:  # after an evaluation without the recording
            self._moved.origins[2].copy_(torch.from_numpy(track.positions))
            self._before = track.positions
        tolerance = self.options.tolerance(len(points), bool(track.periodic))
        self._recording.replay()
        found, charges, adjoint, lengths = self._recording.result
        numbers = to_numpy(found.values)
        last = numbers[-sum(lengths) - 3 :].tolist()
        solves, farthest, rest = [], last[:3], last[3:]
        for record in (rest[: lengths[0]], rest[lengths[0] :]):
            iterations = len(record) // 3 - 1  # 3 norms, and r·z, d·A d and a norm of each
            solves.append(judged(iterations, tolerance, iterations + 1, record))
        if not all(a <= b for a, b in zip(farthest, self._moved.allowed, strict=True)):
            return None
        if not all(seen.positive and seen.size <= seen.goal for seen in solves):
            self.reset()
            return None
        first, second = (seen.iterations for seen in solves)
        self._iterations.append((first, second))
        track.charges.report(first)
        track.adjoint.report(second)
        self.memory.preconditioner.report(max(first, second))
        if farthest[2] > 0.0:
            self._before = np.array(points)
            track.proceed(self._before, charges, adjoint)
            self._moved.origins[2].copy_(self._positions)
        self.count += 1
        most = [max(1, *counts) for counts in zip(*self._iterations, strict=True)]
        spare = sum(lengths) // 3 - 2 - sum(most)
        if len(self._iterations) == _REMEMBERED and spare >= _SPARE:
            self._graph = self._recording = None
        residual = max(seen.largest for seen in solves)
        return found.evaluation(numbers, residual, (first, second))


def _state(tensors: list[torch.Tensor]) -> list[tuple[int, int]]:
    """Numbers that change with the values of tensors, or with the memory that holds them."""
    return [(each._version, each.data_ptr()) for each in tensors]
