"""Stored trajectories as frames in Å, from files of mdtraj and ASE or from memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import BoxError, InputError, describe
from ..files.content import FileContent, is_mmcif, say_sites
from ..files.gro import gro_frames, read_gro
from ..files.pdb import pdb_frames, read_pdb
from ..paths import AsciiPath
from ..total_charge import told_charge, total_charge_of
from ..units import ANGSTROM_PER_NM

if TYPE_CHECKING:
    import mdtraj
    from ase import Atoms

#: What can be read: a file, the output directory of ``nequiplr md``, or what is in memory.
TrajectoryLike: TypeAlias = "str | Path | mdtraj.Trajectory | Sequence[Atoms] | StoredTrajectory"

# Files that `nequiplr md` leaves in its directory.
RUN_TRAJECTORY, RUN_TOPOLOGY = "trajectory.dcd", "topology.pdb"
RUN_CHARGES, RUN_SETTINGS = "charges.npy", "run.json"

# mdtraj numbers the frames of other formats instead of telling their time.
_WITH_TIMES = {".h5", ".hdf5", ".nc", ".ncdf", ".netcdf", ".trr", ".xtc"}
# Readers of one frame and of all frames: every atom counts, which mdtraj does not promise.
_RECORDS: dict[str, tuple[Callable[..., FileContent], Callable[[Path], Iterable[Any]]]] = {
    ".pdb": (read_pdb, pdb_frames),
    ".ent": (read_pdb, pdb_frames),
    ".gro": (read_gro, gro_frames),
}
_COORDINATES_AT_ONCE = 3_000_000


@dataclass(frozen=True)
class Frame:
    """One frame of a trajectory.

    Parameters
    ----------
    index : int
        Its number in the trajectory as stored, from 0.
    time : float, ps
        NaN where the trajectory does not tell.
    positions : numpy.ndarray, float64, shape (N, 3), Å
    cell : numpy.ndarray, float64, shape (3, 3), Å, or None
        Rows are lattice vectors; ``None`` without periodicity.
    """

    index: int
    time: float
    positions: np.ndarray
    cell: np.ndarray | None


@dataclass(frozen=True)
class StoredTrajectory:
    """A trajectory of N atoms that is read frame by frame, any number of times.

    Parameters
    ----------
    source : str
        Where it comes from, for messages.
    symbols : tuple of str, length N
    total_charge : float or None, e
        ``None`` where the source does not tell.
    stride : int
        Every so many frames are read.
    recorded : path or None
        Charges that were recorded during the run, frame by frame.
    """

    source: str
    symbols: tuple[str, ...]
    total_charge: float | None
    stride: int
    recorded: Path | None = None
    _read: Callable[[], Iterable[Frame]] = field(default=tuple, repr=False)

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return len(self.symbols)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """Frames in their order; a few are in memory at a time.

        Parameters
        ----------
        skip : int
            Leave out the first ones (counted after the stride).

        Raises
        ------
        InputError
            If a frame cannot be read or does not have the atoms of the first one.
        """
        try:
            yield from islice(self._read(), skip * self.stride, None, self.stride)
        except (InputError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # readers raise errors of any type
            raise InputError(
                describe("trajectory", f"{self.source} ({error})", "a readable trajectory")
            ) from error


def open_trajectory(
    trajectory: TrajectoryLike, topology: Any = None, stride: int = 1
) -> StoredTrajectory:
    """Prepare a trajectory for reading.

    Parameters
    ----------
    trajectory : path, mdtraj.Trajectory or sequence of ase.Atoms
        A file in a format of mdtraj or ASE (extended XYZ …), or the output directory of
        ``nequiplr md``. XYZ files are read by mdtraj if there is a topology, else by ASE.
        A PDB file holds one cell for all its frames.
    topology : path, mdtraj.Topology or mdtraj.Trajectory, optional
        Needed by formats that hold coordinates alone (DCD, XTC, …).
    stride : int
        Read every so many frames.

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
    mdtraj = sys.modules.get("mdtraj")  # an object of it exists only if it was imported
    if mdtraj is not None and isinstance(trajectory, mdtraj.Trajectory):
        return _in_memory(trajectory, stride)
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
    if _is_for_mdtraj(path, topology):
        return _from_mdtraj(path, topology, stride)
    from ase.io import iread

    kind = "cif" if path.suffix.lower() == ".cif" else None
    return _from_ase(str(path), lambda: iread(str(path), index=":", format=kind), stride)


def _from_records(path: Path, stride: int) -> StoredTrajectory | None:
    """A PDB or GRO file; ``None`` for other formats."""
    readers = _RECORDS.get(path.suffix.lower())
    if readers is None:
        return None
    read_one, read_all = readers
    first = read_one(path, 0)
    say_sites(path, first)
    symbols = tuple("H" if s == "D" else str(s) for s in first.symbols if s is not None)

    def read() -> Iterator[Frame]:
        for index, (positions, cell) in enumerate(read_all(path)):
            if len(positions) != len(symbols):
                expected = f"the {len(symbols)} atoms of the first frame"
                raise InputError(describe(f"{path}, frame {index}", len(positions), expected))
            yield Frame(index, float("nan"), positions, cell)

    return StoredTrajectory(str(path), symbols, first.charge, stride, None, read)


# ---------------------------------------------------------------------------------------- mdtraj


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _is_for_mdtraj(path: Path, topology: Any) -> bool:
    from mdtraj.formats.registry import FormatRegistry

    suffix = _suffix(path)
    if suffix == ".xyz":
        return topology is not None
    crystal = suffix == ".cif" and not is_mmcif(path)
    return suffix in FormatRegistry.loaders and not crystal


def _elements(topology: mdtraj.Topology) -> tuple[str, ...]:
    atoms = list(topology.atoms)
    nameless = [atom for atom in atoms if atom.element is None or atom.element.number < 1]
    if nameless or not atoms:
        shown = ", ".join(f"{atom} (index {atom.index})" for atom in nameless[:5]) or "no atoms"
        expected = "an element for every atom; leave virtual sites out with mdtraj's atom_slice"
        raise InputError(describe("topology", shown, expected))
    return tuple(atom.element.symbol for atom in atoms)


def _in_memory(trajectory: mdtraj.Trajectory, stride: int) -> StoredTrajectory:
    def read() -> Iterator[Frame]:
        for index in range(trajectory.n_frames):
            yield _frame(trajectory, index, index, float(trajectory.time[index]))

    symbols = _elements(trajectory.topology)
    return StoredTrajectory("the mdtraj.Trajectory", symbols, None, stride, None, read)


def _from_mdtraj(
    path: Path, topology: Any, stride: int, times: np.ndarray | None = None
) -> StoredTrajectory:
    """A file; ``times`` (ps, shape (F,)) are known from elsewhere."""
    import mdtraj

    options = {} if topology is None else {"top": _readable_topology(topology)}
    alias = AsciiPath(path)
    with_times = _suffix(path) in _WITH_TIMES

    def time_of(index: int, told: float) -> float:
        if times is not None and index < len(times):
            return float(times[index])
        return float(told) if with_times else float("nan")

    def read() -> Iterator[Frame]:
        chunk = max(1, min(100, _COORDINATES_AT_ONCE // (3 * len(symbols))))
        count = 0
        for part in mdtraj.iterload(alias.path, chunk=chunk, **options):
            for k in range(part.n_frames):
                yield _frame(part, k, count, time_of(count, part.time[k]))
                count += 1

    symbols = _elements(_topology_of(path, alias, options))
    return StoredTrajectory(str(path), symbols, None, stride, None, read)


def _readable_topology(topology: Any) -> Any:
    """An mdtraj.Topology out of what was given."""
    import mdtraj

    if isinstance(topology, mdtraj.Trajectory):
        return topology.topology
    if not isinstance(topology, str | Path):
        return topology
    if not Path(topology).is_file():
        raise FileNotFoundError(f"topology: expected an existing file, got {topology}")
    path = Path(topology)
    try:
        if path.suffix.lower() in _RECORDS:
            content = _RECORDS[path.suffix.lower()][0](path, 0)
            say_sites(path, content)
            return _bare_topology(symbol for symbol in content.symbols if symbol is not None)
        if not _is_for_mdtraj(path, topology) or path.suffix.lower() == ".xyz":
            from ase.io import iread

            return _bare_topology(next(iter(iread(path, index=0))).symbols)
        return mdtraj.load_topology(AsciiPath(path).path)
    except InputError:
        raise
    except Exception as error:  # readers raise errors of any type
        expected = "a file from which mdtraj reads a topology"
        raise InputError(describe("topology", f"{topology} ({error})", expected)) from error


def _bare_topology(symbols: Iterable[str]) -> mdtraj.Topology:
    """Elements in their order; charges and energies need no more."""
    import mdtraj

    bare = mdtraj.Topology()
    residue = bare.add_residue("ALL", bare.add_chain())
    for symbol in symbols:
        element = mdtraj.element.Element.getBySymbol("H" if symbol == "D" else str(symbol))
        bare.add_atom(str(symbol), element, residue)
    return bare


def _topology_of(path: Path, alias: AsciiPath, options: dict[str, Any]) -> mdtraj.Topology:
    import mdtraj

    try:
        return next(mdtraj.iterload(alias.path, chunk=1, **options)).topology
    except StopIteration:
        raise InputError(describe("trajectory", f"no frames in {path}", "at least one")) from None
    except Exception as error:
        expected = "a trajectory that mdtraj reads" + ("" if options else " without a topology")
        remedy = "" if options else "; give one with topology"
        got = f"{path} ({str(error) or type(error).__name__})"
        raise InputError(describe("trajectory", got, expected) + remedy) from error


def _frame(part: mdtraj.Trajectory, k: int, index: int, time: float) -> Frame:
    positions = np.array(part.xyz[k], dtype=np.float64) * ANGSTROM_PER_NM
    cell = None
    if part.unitcell_lengths is not None:
        cell = np.array(part.unitcell_vectors[k], dtype=np.float64) * ANGSTROM_PER_NM
    return Frame(index, time, positions, cell)


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
    charge = told or 0.0

    def frames() -> Iterator[Frame]:
        for index, atoms in enumerate(read()):
            where = f"{source}, frame {index}"
            if tuple(atoms.symbols) != symbols:
                expected = "the atoms of the first frame in the same order"
                raise InputError(describe(where, atoms.get_chemical_formula(), expected))
            if total_charge_of(atoms) != charge:
                expected = f"the total charge {charge:g} e of the first frame"
                raise InputError(describe(where, total_charge_of(atoms), expected))
            if atoms.pbc.any() and not atoms.pbc.all():
                expected = "periodic in all directions or in none; give a slab a cell with vacuum"
                raise BoxError(describe(f"{where}: pbc", atoms.pbc.tolist(), expected))
            cell = np.array(atoms.cell, dtype=np.float64) if atoms.pbc.all() else None
            time = float(atoms.info.get("time", "nan"))
            yield Frame(index, time, np.array(atoms.positions, dtype=np.float64), cell)

    return StoredTrajectory(source, symbols, told, stride, None, frames)


# ------------------------------------------------------------------------------------ nequiplr md


def _run_directory(path: Path, stride: int) -> StoredTrajectory:
    """What ``nequiplr md`` wrote: times and total charge are known too."""
    missing = [name for name in (RUN_TRAJECTORY, RUN_TOPOLOGY) if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"trajectory: expected a file or the output directory of nequiplr md, got {path} "
            f"({' and '.join(missing)} missing)"
        )
    charges, settings = path / RUN_CHARGES, path / RUN_SETTINGS
    recorded = charges if charges.is_file() else None
    times = None if recorded is None else recorded_charges(recorded)["time"]
    found = _from_mdtraj(path / RUN_TRAJECTORY, path / RUN_TOPOLOGY, stride, times)
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return StoredTrajectory(
        str(path), found.symbols, told.get("total_charge"), stride, recorded, found._read
    )


def recorded_charges(path: str | Path) -> np.ndarray:
    """Records of a charge reporter with fields ``step``, ``time`` (ps), ``dipole`` and ``charges``.

    Returns
    -------
    numpy.ndarray, structured, shape (F,)
        Mapped from the file, not read at once.

    Raises
    ------
    InputError
        If it is another file.
    """
    try:
        records = np.load(path, mmap_mode="r")
        if {"time", "charges"} <= set(records.dtype.names or ()):
            return records
        error = "other contents"
    except (ValueError, EOFError) as failure:
        error = str(failure)
    raise InputError(describe("charges", f"{path} ({error})", "a file written by ChargeReporter"))
