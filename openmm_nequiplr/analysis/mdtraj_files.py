"""Trajectories and topologies read by mdtraj."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..console import silent_libraries
from ..errors import InputError, describe, notify
from ..files.ase_frames import ase_frames
from ..files.content import say_sites
from ..files.records import record_readers
from ..paths import AsciiPath
from ..total_charge import told_charge
from ..units import ANGSTROM_PER_NM
from .stored import Frame, StoredTrajectory

if TYPE_CHECKING:
    import mdtraj

# Formats with times; for others mdtraj returns frame numbers instead.
_WITH_TIMES = {".h5", ".hdf5", ".nc", ".ncdf", ".netcdf", ".trr", ".xtc"}
# Topologies in which mdtraj may deduce elements, from masses, names or types.
_DEDUCED = {".psf", ".prmtop", ".parm7", ".prm7", ".arc", ".hoomdxml", ".gsd"}
_COORDINATES_AT_ONCE = 3_000_000


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def is_for_mdtraj(path: Path, topology: Any) -> bool:
    """Whether mdtraj reads a file, given a topology or None."""
    from mdtraj.formats.registry import FormatRegistry

    suffix = _suffix(path)
    if suffix == ".xyz":
        return topology is not None
    return suffix in FormatRegistry.loaders and suffix != ".cif"


def _elements(topology: mdtraj.Topology, kept: list[int] | None = None) -> tuple[str, ...]:
    """Symbols of the atoms of a topology, or of those with the indices ``kept``."""
    atoms = list(topology.atoms if kept is None else map(topology.atom, kept))
    nameless = [atom for atom in atoms if atom.element is None or atom.element.number < 1]
    if nameless or not atoms:
        shown = ", ".join(f"{atom} (index {atom.index})" for atom in nameless[:5]) or "no atoms"
        expected = "an element for every atom; leave virtual sites out with mdtraj's atom_slice"
        raise InputError(describe("topology", shown, expected))
    return tuple("H" if atom.element.symbol == "D" else atom.element.symbol for atom in atoms)


def in_memory(trajectory: mdtraj.Trajectory, stride: int) -> StoredTrajectory:
    """Wrap an ``mdtraj.Trajectory``."""

    def read() -> Iterator[Frame]:
        for index in range(trajectory.n_frames):
            yield _frame(trajectory, index, index, float(trajectory.time[index]))

    symbols = _elements(trajectory.topology)
    return StoredTrajectory("the mdtraj.Trajectory", symbols, None, stride, None, read)


def from_mdtraj(
    path: Path, topology: Any, stride: int, times: np.ndarray | None = None
) -> StoredTrajectory:
    """Open a file with mdtraj; ``times`` (ps, shape (F,)) replace those of the file."""
    import mdtraj

    options: dict[str, Any] = {}
    charge, kept = None, None
    if topology is not None:
        options["top"], charge, kept = _readable_topology(topology)
    alias = AsciiPath(path)
    with_times = _suffix(path) in _WITH_TIMES

    def time_of(index: int, told: float) -> float:
        if times is not None and index < len(times):
            return float(times[index])
        return float(told) if with_times else float("nan")

    def read() -> Iterator[Frame]:
        chunk = max(1, min(100, _COORDINATES_AT_ONCE // (3 * found.n_atoms)))
        count = 0
        parts = mdtraj.iterload(alias.path, chunk=chunk, **options)
        with silent_libraries():  # the DCD reader prints when it opens a file
            part = next(parts, None)
        while part is not None:
            for k in range(part.n_frames):
                yield _frame(part, k, count, time_of(count, part.time[k]), kept)
                count += 1
            part = next(parts, None)

    found = _topology_of(path, alias, options, kept)
    if topology is not None and found.n_atoms < options["top"].n_atoms:
        options["top"], kept = found, None
    symbols = _elements(found, kept)
    source = topology if isinstance(topology, str | Path) else path
    if _suffix(Path(source)) in _DEDUCED:
        counts = ", ".join(f"{symbol} {count}" for symbol, count in Counter(symbols).items())
        notify(f"topology: the elements of {source} are those that mdtraj deduces: {counts}")
    return StoredTrajectory(str(path), symbols, charge, stride, None, read)


def _readable_topology(topology: Any) -> tuple[Any, float | None, list[int] | None]:
    """Convert a topology, trajectory or file to an ``mdtraj.Topology``.

    Returns
    -------
    topology : mdtraj.Topology
    charge : float or None, e
        Total charge, if the file contains it.
    kept : list of int, or None
        Indices of the atoms, if the topology also contains virtual sites.
    """
    import mdtraj

    if isinstance(topology, mdtraj.Trajectory):
        return topology.topology, None, None
    if not isinstance(topology, str | Path):
        return topology, None, None
    if not Path(topology).is_file():
        raise FileNotFoundError(f"topology: expected an existing file, got {topology}")
    path = Path(topology)
    try:
        readers = record_readers(path)
        if readers is not None:
            content = readers.one(path, 0)
            say_sites(path, content)
            kept = None if None not in content.symbols else content.atoms
            return _bare_topology(content.symbols), content.charge, kept
        known = path.suffix.lower() in _DEDUCED or is_for_mdtraj(path, topology)
        if not known or path.suffix.lower() == ".xyz":
            first = next(ase_frames(path))
            return _bare_topology(first.symbols), told_charge(first), None
        return mdtraj.load_topology(AsciiPath(path).path), None, None
    except InputError:
        raise
    except Exception as error:  # readers raise errors of any type
        expected = "a file from which mdtraj reads a topology"
        raise InputError(describe("topology", f"{topology} ({error})", expected)) from error


def _bare_topology(symbols: Iterable[str | None]) -> mdtraj.Topology:
    """Topology that contains only elements, which suffice for charges and energies.

    The symbol of a virtual site is ``None``.
    """
    import mdtraj

    bare = mdtraj.Topology()
    residue = bare.add_residue("ALL", bare.add_chain())
    for symbol in symbols:
        known = {"D": "H", None: "VS"}.get(symbol, symbol)
        bare.add_atom(known, mdtraj.element.Element.getBySymbol(known), residue)
    return bare


def _topology_of(
    path: Path, alias: AsciiPath, options: dict[str, Any], kept: list[int] | None
) -> mdtraj.Topology:
    """Topology of a trajectory, in which virtual sites of the given topology may be missing."""
    import mdtraj

    try:
        with silent_libraries():
            return next(mdtraj.iterload(alias.path, chunk=1, **options)).topology
    except StopIteration:
        raise InputError(describe("trajectory", f"no frames in {path}", "at least one")) from None
    except Exception as error:
        given = options.get("top")
        counts = re.search(r"shape \(Any, \d+, 3\).*\(\d+, (\d+), 3\)", str(error))
        if given is not None and counts is not None:
            count = int(counts.group(1))
            if kept is not None and count == len(kept):
                return given.subset(kept)
            expected = f"the {given.n_atoms} atoms of the topology"
            if kept is not None:
                expected = f"the {len(kept)} atoms of the topology, or also its virtual sites"
            got = f"{count} atoms in {path}"
            raise InputError(describe("trajectory", got, expected)) from error
        expected = "a trajectory that mdtraj reads" + ("" if options else " without a topology")
        remedy = "" if options else "; give one with topology"
        got = f"{path} ({str(error) or type(error).__name__})"
        raise InputError(describe("trajectory", got, expected) + remedy) from error


def _frame(
    part: mdtraj.Trajectory, k: int, index: int, time: float, kept: list[int] | None = None
) -> Frame:
    chosen = slice(None) if kept is None else kept
    positions = np.array(part.xyz[k][chosen], dtype=np.float64) * ANGSTROM_PER_NM
    cell = None
    if part.unitcell_lengths is not None:
        cell = np.array(part.unitcell_vectors[k], dtype=np.float64) * ANGSTROM_PER_NM
    return Frame(index, time, positions, cell)
