"""Opening of trajectories: files read by mdtraj or ASE, runs, or objects in memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..boundaries import SLAB, as_pbc
from ..conditions import FIELD, ChargeConditions
from ..errors import InputError, describe
from ..files.ase_frames import ase_frames
from ..files.content import say_sites
from ..files.records import record_readers
from ..total_charge import told_charge, total_charge_of
from ..units import ANGSTROM_PER_NM
from .mdtraj_files import from_mdtraj, in_memory, is_for_mdtraj
from .stored import Frame, StoredTrajectory, TrajectoryLike

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "Frame",
    "StoredTrajectory",
    "TrajectoryLike",
    "open_trajectory",
    "recorded_charges",
]

# Files that `nequiplr md` writes to its directory.
RUN_TRAJECTORY, RUN_TOPOLOGY = "trajectory.dcd", "topology.pdb"
RUN_CHARGES, RUN_SETTINGS = "charges.npy", "run.json"


def open_trajectory(
    trajectory: TrajectoryLike, topology: Any = None, stride: int = 1
) -> StoredTrajectory:
    """Open a trajectory.

    Parameters
    ----------
    trajectory : path, mdtraj.Trajectory or sequence of ase.Atoms
        A file in a format of mdtraj or ASE (extended XYZ …), or the output directory of
        ``nequiplr md``. XYZ files are read by mdtraj if a topology is given, else by ASE.
        PDB and mmCIF files have one cell for all their frames.
    topology : path, mdtraj.Topology or mdtraj.Trajectory, optional
        Required for formats that contain only coordinates (DCD, XTC, …).
    stride : int
        Read every ``stride``-th frame.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    InputError
        If it cannot be read, a topology is missing, or atoms have no element.
    """
    if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
        raise InputError(describe("stride", stride, "a whole number of at least 1"))
    if isinstance(trajectory, StoredTrajectory):
        return replace(trajectory, stride=stride * trajectory.stride)
    mdtraj = sys.modules.get("mdtraj")  # if it is not imported, this is no mdtraj object
    if mdtraj is not None and isinstance(trajectory, mdtraj.Trajectory):
        return in_memory(trajectory, stride)
    if not isinstance(trajectory, str | Path):
        structures: Any = [trajectory] if hasattr(trajectory, "get_positions") else trajectory
        return _from_ase("structures", lambda: iter(structures), stride)
    path = Path(trajectory)
    if path.is_dir():
        return _run_directory(path, stride)
    if not path.is_file():
        raise FileNotFoundError(f"trajectory: expected an existing file, got {path}")
    own = _from_records(path, stride)
    if own is not None:
        return own
    if is_for_mdtraj(path, topology):
        return from_mdtraj(path, topology, stride)
    return _from_ase(str(path), lambda: ase_frames(path), stride)


def _from_records(path: Path, stride: int) -> StoredTrajectory | None:
    """Open a PDB, GRO or mmCIF file; ``None`` for other formats."""
    readers = record_readers(path)
    if readers is None:
        return None
    first = readers.one(path, 0)
    say_sites(path, first)
    symbols = tuple("H" if s == "D" else str(s) for s in first.symbols if s is not None)

    def read() -> Iterator[Frame]:
        for index, (positions, cell) in enumerate(readers.all(path)):
            if len(positions) != len(symbols):
                expected = f"the {len(symbols)} atoms of the first frame"
                raise InputError(describe(f"{path}, frame {index}", len(positions), expected))
            yield Frame(index, float("nan"), positions, cell)

    return StoredTrajectory(str(path), symbols, first.charge, stride, None, read)


# ------------------------------------------------------------------------------------------- ASE


def _from_ase(source: str, read: Callable[[], Iterable[Atoms]], stride: int) -> StoredTrajectory:
    try:
        first = next(iter(read()), None)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # readers raise errors of any type
        expected = "a trajectory that mdtraj or ASE reads"
        raise InputError(describe("trajectory", f"{source} ({error})", expected)) from error
    if first is None or len(first) == 0:
        got = f"no {'frames' if first is None else 'atoms'} in {source}"
        raise InputError(describe("trajectory", got, "at least one"))
    symbols, told = tuple(str(s) for s in first.symbols), told_charge(first)
    held, charge = replace(ChargeConditions.told_by(first), electric_field=None), told or 0.0

    def frames() -> Iterator[Frame]:
        for index, atoms in enumerate(read()):
            where = f"{source}, frame {index}"
            if tuple(atoms.symbols) != symbols:
                expected = "the atoms of the first frame in the same order"
                raise InputError(describe(where, atoms.get_chemical_formula(), expected))
            now = ChargeConditions.told_by(atoms)
            if not replace(now, electric_field=None).same(held):
                expected = "the charge groups, electrodes and voltage of the first frame"
                raise InputError(describe(where, "others", expected))
            if total_charge_of(atoms) != charge:
                expected = f"the total charge {charge:g} e of the first frame"
                raise InputError(describe(where, total_charge_of(atoms), expected))
            try:
                pbc = as_pbc(atoms.pbc)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            cell = np.array(atoms.cell, dtype=np.float64) if pbc else None
            time = float(atoms.info.get("time", "nan"))
            field = _field(now.electric_field, where)
            positions = np.array(atoms.positions, dtype=np.float64)
            yield Frame(index, time, positions, cell, field, pbc == SLAB)

    return StoredTrajectory(source, symbols, told, stride, None, frames, held)


def _field(value: Any, where: str) -> np.ndarray | None:
    """Validated uniform field, shape (3,), V/Å; ``None`` if it is absent or zero."""
    if value is None:
        return None
    try:
        field = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        field = np.full(1, np.nan)
    if field.shape != (3,) or not np.isfinite(field).all():
        expected = "three finite numbers in V/Å"
        raise InputError(describe(f"{where}: electric_field", value, expected))
    return field if field.any() else None


# ------------------------------------------------------------------------------------ nequiplr md


def _run_directory(path: Path, stride: int) -> StoredTrajectory:
    """Open the output directory of ``nequiplr md``, including times, total charge and field."""
    missing = [name for name in (RUN_TRAJECTORY, RUN_TOPOLOGY) if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"trajectory: expected a file or the output directory of nequiplr md, got {path} "
            f"({' and '.join(missing)} missing)"
        )
    charges, settings = path / RUN_CHARGES, path / RUN_SETTINGS
    recorded = charges if charges.is_file() else None
    times = None if recorded is None else recorded_charges(recorded)["time"]
    found = from_mdtraj(path / RUN_TRAJECTORY, path / RUN_TOPOLOGY, stride, times)
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    field = told.get("electric_field")
    if field is not None:  # V/nm
        field = _field(np.array(field) / ANGSTROM_PER_NM, str(settings))

    def read() -> Iterator[Frame]:
        for frame in found._read():
            yield replace(frame, electric_field=field, slab=bool(told.get("slab")))

    names = [each.name for each in fields(ChargeConditions) if each.name != FIELD]
    held = ChargeConditions(**{name: told[name] for name in names if name in told})
    told_as = found.symbols, told.get("total_charge")
    return StoredTrajectory(str(path), *told_as, stride, recorded, read, held)


def recorded_charges(path: str | Path) -> np.ndarray:
    """Records of a charge reporter with fields ``step``, ``time`` (ps), ``dipole`` and ``charges``.

    Returns
    -------
    numpy.ndarray, structured, shape (F,)
        Memory-mapped.

    Raises
    ------
    InputError
        If the file was not written by a ``ChargeReporter``.
    """
    try:
        records = np.load(path, mmap_mode="r")
        if {"time", "charges"} <= set(records.dtype.names or ()):
            return records
        error = "other contents"
    except (ValueError, EOFError) as failure:
        error = str(failure)
    raise InputError(describe("charges", f"{path} ({error})", "a file written by ChargeReporter"))
