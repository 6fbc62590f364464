"""Evaluation of a model at every frame of a stored trajectory."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..boundaries import BULK, FREE, SLAB, say_not_periodic, whole_slab
from ..conditions import read_electrodes
from ..errors import InputError, NequIPLRError, describe
from ..fragments import read_groups
from ..lattice import continued
from ..model import NequIPLRPotential, load_model
from ..model.building import GraphBuilder
from ..model.evaluation import Evaluation, Evaluator
from ..model.io import model_digest
from ..model.options import EvaluationOptions
from ..model.response import Response
from ..total_charge import assume_neutral, check_trained
from ..verlet import DEFAULT_SKIN
from .properties import TrajectoryProperties, check_same
from .trajectories import Frame, StoredTrajectory, TrajectoryLike, open_trajectory
from .transport import moving_dipole

_SECONDS_BETWEEN_SAVES = 60.0
_OPTIONAL = ("forces", "born_dipoles", "polarizabilities")
# Tolerance of positions of the same frame, Å; trajectories are stored in single precision.
_SAME_POSITION = 1e-3


def recompute(
    model: NequIPLRPotential | str | Path,
    trajectory: TrajectoryLike,
    topology: Any = None,
    *,
    stride: int = 1,
    total_charge: float | None = None,
    forces: bool = False,
    response: bool = False,
    output: str | Path | None = None,
    resume: bool = False,
    on_frame: Callable[[Frame, Evaluation], None] | None = None,
    **options: Any,
) -> TrajectoryProperties:
    """Evaluate a model at every frame of a trajectory.

    The conditions that a trajectory specifies are applied: an electric field (``electric_field``
    in the comment line of extended XYZ, V/Å), charge groups with constrained charges (column
    ``charge_group``, entry ``group_charges``) and electrodes (column ``electrode``, entry
    ``electrode_voltage``). The directory of a run specifies the conditions of that run.

    Only a few frames are in memory at a time, together with all results. Neighbour lists and the
    memory of an iterative solver are kept from frame to frame. The Coulomb sums are those of
    ``long_range="graph"``, which differ from OpenMM's by the error of its mesh.

    Parameters
    ----------
    model : NequIPLRPotential, path or str
        A model (it is copied), a model file, or the name of a shipped or downloaded model.
    trajectory : path, mdtraj.Trajectory or sequence of ase.Atoms
        For this and the next two arguments, see :func:`open_trajectory`.
    topology : path, mdtraj.Topology or mdtraj.Trajectory, optional
    stride : int
    total_charge : float, optional, e
        Total charge of the system; by default that of the trajectory. If the trajectory does not
        contain it, 0 is assumed with a warning.
    forces : bool
        Whether to return forces as well.
    response : bool
        Whether to compute Born charges and polarisabilities in every frame, and the properties
        derived from them. The cost is three times as high.
    output : path, optional
        ``.npz`` file for the results, written at the end, once a minute and when interrupted.
    resume : bool
        Keep the results in ``output`` and continue after its last frame.
    on_frame : callable, optional
        Called with every frame and its results.
    **options
        ``device``, ``precision``, ``solver``, ``charge_tolerance`` and ``max_iterations``, see
        :class:`.model.options.EvaluationOptions`.

    Notes
    -----
    Dipoles are Σ q r. In a periodic cell, r starts from the images of the atoms in the first frame
    and is unwrapped along the trajectory: a jump by a lattice vector between two frames is undone.
    This is correct if no atom moves by more than half a cell between frames. Cells that differ in
    the choice of the basis, as a flexible box after reduction, are treated as one lattice.

    With other images in the first frame, the dipole differs by lattice vectors times charges.
    Since the charges vary in time, changes of the dipole depend on the choice of images as well.
    The dipole does not depend on it for isolated neutral molecules that are whole in the first
    frame, and along the normal of a slab, whose atoms are kept together. For a charged system, the
    dipole depends on the origin.

    Raises
    ------
    InputError
        If model and trajectory are not compatible, a frame cannot be evaluated (the message names
        it), or the results to resume belong to another calculation.
    """
    chosen = EvaluationOptions(**options)
    source = open_trajectory(trajectory, topology, stride)
    model = copy.deepcopy(model) if isinstance(model, NequIPLRPotential) else load_model(model)
    digest = model_digest(model)
    if total_charge is None:
        total_charge = source.total_charge
    if total_charge is None:
        where = f"{source.source} does not tell (--total-charge, total_charge, does)"
        total_charge = assume_neutral(model.metadata, where)
    check_trained(model.metadata, total_charge)
    results = _Results(source, float(total_charge), digest, forces, response)
    if resume:
        results.take_up(_earlier(output))
    evaluator = Evaluator(model, chosen.dtype, chosen.device, chosen)
    _evaluate(evaluator, results, None if output is None else Path(output), on_frame)
    return results.finished()


def _earlier(output: str | Path | None) -> TrajectoryProperties | None:
    """Earlier results; ``None`` if there is no file yet."""
    if output is None:
        raise InputError(describe("resume", True, "False without an output to go on from"))
    return TrajectoryProperties.load(output) if Path(output).is_file() else None


def _evaluate(
    evaluator: Evaluator,
    results: _Results,
    output: Path | None,
    on_frame: Callable[[Frame, Evaluation], None] | None,
) -> None:
    """Evaluate the remaining frames; results are saved even if an error occurs."""
    source, graphs, given = results.source, None, FREE
    saved = time.monotonic()
    try:
        for frame in source.frames(skip=results.count):
            pbc = FREE if frame.cell is None else (SLAB if frame.slab else BULK)
            if graphs is None or given != pbc:
                given, periodic = pbc, evaluator.model.config.sees_images(bool(pbc))
                if not pbc:
                    what = f"frame {frame.index} of {source.source} has no cell and is"
                    say_not_periodic(evaluator.model.metadata, what)
                graphs = GraphBuilder(
                    evaluator.model.config,
                    source.symbols,
                    pbc,
                    results.total_charge,
                    skin=DEFAULT_SKIN,
                    device=evaluator.model.device,
                    lattice_sum=not evaluator.iterative(source.num_atoms, periodic),
                    conditions=source.conditions,
                )
            try:
                places = frame.positions, frame.cell, frame.electric_field
                graph = graphs(*places, source.conditions.electrode_voltage)
                evaluation = evaluator(graph, results.with_forces)
                response = evaluator.response(graph) if results.with_response else None
                results.add(frame, evaluation, response)
            except NequIPLRError as error:
                raise type(error)(f"{source.source}, frame {frame.index}: {error}") from error
            if on_frame is not None:
                on_frame(frame, evaluation)
            if output is not None and time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                results.finished().save(output)
                saved = time.monotonic()
    finally:
        if output is not None and results.count:
            results.finished().save(output)


class _Results:
    """Results collected frame by frame."""

    def __init__(
        self,
        source: StoredTrajectory,
        total_charge: float,
        digest: str,
        forces: bool,
        response: bool,
    ) -> None:
        self.source, self.total_charge, self.digest = source, total_charge, digest
        self.with_forces, self.with_response = forces, response
        self.frames: list[int] = []
        self._rows: dict[str, list[Any]] = {
            name: [] for name in ("times", "energies", "charges", "dipoles", "volumes", *_OPTIONAL)
        }
        self._born: np.ndarray | None = None
        self._last: tuple[np.ndarray, np.ndarray | None] | None = None
        self._field: np.ndarray | None = None
        self._slab = False
        given, count = source.conditions, source.num_atoms
        held = read_groups(count, given.charge_groups, given.group_charges, total_charge)
        self._groups = None if held is None else held.groups
        self._group_charges = None if held is None else held.charges
        sides = read_electrodes(count, given.electrodes)
        self._applied = None if sides is None else given.electrode_voltage * sides

    @property
    def count(self) -> int:
        """Number of frames so far."""
        return len(self.frames)

    def take_up(self, earlier: TrajectoryProperties | None) -> None:
        """Start from earlier results, if they belong to the same model and trajectory."""
        if earlier is None:
            return
        self._check(earlier)
        self.frames = list(earlier.frames)
        for name, rows in self._rows.items():
            values = getattr(earlier, name)
            rows.extend(() if values is None else values)
        self._born = earlier.last_born
        cell = earlier.last_cell if earlier.last_cell.any() else None
        self._last = earlier.last_positions, cell
        last = next(self.source.frames(skip=self.count - 1), None)
        if last is None or last.index != self.frames[-1]:
            got = f"results up to frame {self.frames[-1]}"
            raise InputError(describe("resume", got, f"results of frames of {self.source.source}"))
        if np.abs(self._followed(last) - earlier.last_positions).max() > _SAME_POSITION:
            got = f"results of other positions in frame {last.index}"
            raise InputError(describe("resume", got, f"results of {self.source.source}"))
        field = None if last.electric_field is None else np.asarray(last.electric_field)
        check_same("electric field", earlier.last_field, field)
        check_same("boundary, slab or bulk", earlier.slab, last.slab)
        self._field, self._slab = field, last.slab

    def _check(self, earlier: TrajectoryProperties) -> None:
        for name, old, new in (
            ("atoms", earlier.symbols, self.source.symbols),
            ("model", earlier.model_digest, self.digest),
            ("total charge", earlier.total_charge, self.total_charge),
            ("choice of forces", earlier.forces is not None, self.with_forces),
            ("choice of response", earlier.last_born is not None, self.with_response),
            ("choice of charge groups", earlier.charge_groups, self._groups),
            ("choice of charge groups", earlier.group_charges, self._group_charges),
            ("voltage of electrodes", earlier.applied, self._applied),
        ):
            check_same(name, old, new)

    def _followed(self, frame: Frame) -> np.ndarray:
        """Positions unwrapped with respect to the previous frame, shape (N, 3), Å."""
        last, last_cell = self._last or (None, None)
        positions = frame.positions
        if frame.slab and frame.cell is not None:
            points, cell = map(torch.from_numpy, (positions, frame.cell))
            positions = whole_slab(points.double(), cell.double())[0].numpy()
        if last is None or last_cell is None or frame.cell is None:
            return positions
        return continued(positions, frame.cell, last, last_cell)

    def add(self, frame: Frame, evaluation: Evaluation, response: Response | None) -> None:
        """Append one frame."""
        positions = self._followed(frame)
        before, self._last = self._last, (positions, frame.cell)
        self.frames.append(frame.index)
        self._field, self._slab = frame.electric_field, frame.slab
        cell = frame.cell
        row = {
            "times": frame.time,
            "energies": evaluation.energy,
            "charges": evaluation.charges,
            "dipoles": evaluation.charges @ positions,
            "volumes": np.nan if cell is None else abs(np.linalg.det(cell)),
        }
        if self.with_forces:
            row["forces"] = evaluation.forces
        if response is not None:
            row.update(self._responded(response, positions, None if before is None else before[0]))
        for name, value in row.items():
            self._rows[name].append(value)

    def _responded(
        self, response: Response, positions: np.ndarray, before: np.ndarray | None
    ) -> dict[str, Any]:
        """Values of the frame that follow from the response, by name."""
        born, dipole = response.born_charges, np.zeros(3)
        if before is not None and self._born is not None:
            pairs = np.array([self._born, born]), np.array([before, positions])
            dipole = self._rows["born_dipoles"][-1] + moving_dipole(*pairs)[-1]
        self._born, alpha = born, response.polarizability
        nothing = np.full((3, 3), np.nan)
        return {
            "born_dipoles": dipole,
            "polarizabilities": nothing if alpha is None else alpha,
        }

    def finished(self) -> TrajectoryProperties:
        """Results of the frames so far."""
        if self._last is None:
            got = f"no frames in {self.source.source}"
            raise InputError(describe("trajectory", got, "at least one"))
        values = {name: np.array(rows, np.float64) for name, rows in self._rows.items() if rows}
        last, cell = self._last
        return TrajectoryProperties(
            symbols=self.source.symbols,
            frames=np.array(self.frames, dtype=np.int64),
            last_positions=last,
            last_cell=np.zeros((3, 3)) if cell is None else cell,
            total_charge=self.total_charge,
            model_digest=self.digest,
            last_born=self._born,
            last_field=self._field,
            slab=self._slab,
            charge_groups=self._groups,
            group_charges=self._group_charges,
            applied=self._applied,
            **values,
        )
