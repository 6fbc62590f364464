"""Structure files of every format as structures for simulations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from openmm import unit

from ..errors import InputError, NequIPLRError, NequIPLRWarning, describe, notify
from ..units import ANGSTROM_PER_NM
from .box import reduce_box
from .cif_file import check_crystal, is_mmcif, mmcif_frames, read_mmcif
from .file_content import FileContent, choose_frame, without_sites
from .gro_file import gro_frames, read_gro
from .pdb_file import pdb_frames, read_pdb
from .topology import SimulationStructure, element_symbols, from_atoms, say_turned

_READERS: dict[str, Callable[[Path, int | None], FileContent]] = {
    ".pdb": read_pdb,
    ".ent": read_pdb,
    ".gro": read_gro,
    ".pdbx": read_mmcif,
    ".mmcif": read_mmcif,
}
# Formats with a topology of their own that mdtraj reads.
_MDTRAJ_SUFFIXES = {".h5", ".hdf5", ".mol2"}


@dataclass(frozen=True)
class FrameFile:
    """All frames of a file.

    Parameters
    ----------
    symbols : tuple of str, length N
    charge : float or None, e
        ``None`` if the file does not tell.
    frames : callable
        Returns an iterator over positions (shape (N, 3), Å) and cells (shape (3, 3), Å, or
        ``None``).
    """

    symbols: tuple[str, ...]
    charge: float | None
    frames: Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]


def read_structure(path: str | Path, frame: int | None = None) -> SimulationStructure:
    """Read a structure file: every atom in the order of the file, cell, masses, total charge.

    OpenMM reads PDB and mmCIF files, mdtraj HDF5 and MOL2 files, ASE anything else (extended XYZ,
    CIF, POSCAR, trajectories …). What a file leaves open or this package cannot take over is said
    by a :class:`~openmm_nequiplr.errors.NequIPLRWarning`: elements told by names, alternate
    locations, virtual sites that are left out, several frames, a cell that had to be rotated.

    Parameters
    ----------
    path : path
    frame : int, optional
        Which of several frames; negative numbers count from the end. By default the last one.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    InputError
        If it cannot be read, or not without loss.
    BoxError
        If the structure is periodic in some directions only, or its cell is degenerate.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"structure: expected an existing file, got {path}")
    suffix = path.suffix.lower()
    try:
        if suffix in _MDTRAJ_SUFFIXES:
            return _from_mdtraj(path, frame)
        reader = _reader(path)
        if reader is None:
            return from_atoms(_from_ase(path, frame, "cif" if suffix == ".cif" else None))
        return _structure(path, without_sites(path, reader(path, frame)))
    except (NequIPLRError, NequIPLRWarning, PermissionError):
        raise
    except Exception as error:  # readers raise whatever they please
        raise _unreadable(path, error) from error


def open_frames(path: Path) -> FrameFile | None:
    """All frames of a file that :func:`read_structure` reads by itself; ``None`` for other files.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    reader = _reader(path)
    if reader is None:
        return None
    try:
        first = without_sites(path, reader(path, 0))
    except (NequIPLRError, NequIPLRWarning, PermissionError):
        raise
    except Exception as error:  # readers raise whatever they please
        raise _unreadable(path, error) from error

    def frames() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        if reader is read_pdb:
            yield from pdb_frames(path)
        elif reader is read_gro:
            yield from gro_frames(path)
        else:
            yield from mmcif_frames(path)

    return FrameFile(tuple(element_symbols(first.topology)), first.charge, frames)


def _reader(path: Path) -> Callable[[Path, int | None], FileContent] | None:
    suffix = path.suffix.lower()
    return read_mmcif if suffix == ".cif" and is_mmcif(path) else _READERS.get(suffix)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"unknown entry {reason}"
    return InputError(f"structure: expected a readable file, got {path} ({reason})")


def _structure(path: Path, content: FileContent) -> SimulationStructure:
    topology, rotation, box = content.topology, np.eye(3), None
    if topology.getNumAtoms() == 0:
        raise InputError(describe("structure", f"no atoms in {path}", "at least one atom"))
    topology.setPeriodicBoxVectors(None)
    if content.cell is not None:
        reduced = reduce_box(content.cell)
        rotation, box = reduced.rotation, reduced.vectors / ANGSTROM_PER_NM
        topology.setPeriodicBoxVectors(unit.Quantity(box, unit.nanometer))
        say_turned(content.cell, rotation)
    if content.charge is not None:
        notify(f"total charge: {content.charge:+g} e, the sum of the formal charges in {path}")
    return SimulationStructure(
        topology,
        content.positions @ rotation.T / ANGSTROM_PER_NM,
        box,
        content.charge or 0.0,
        rotation,
        charge_given=content.charge is not None,
    )


def _from_mdtraj(path: Path, frame: int | None) -> SimulationStructure:
    import mdtraj

    from .mdtraj_topology import from_mdtraj

    trajectory = mdtraj.load(str(path))
    return from_mdtraj(trajectory, choose_frame(path, frame, trajectory.n_frames))


def _from_ase(path: Path, frame: int | None, kind: str | None) -> Any:
    """One frame of a file as ``ase.Atoms``."""
    from ase.io import read
    from ase.io.formats import filetype

    kind = kind or filetype(str(path))
    if kind in ("proteindatabank", "gromacs"):
        expected = "the suffix .pdb or .gro for files of these formats, not compressed"
        raise InputError(describe("structure", str(path), expected))
    _check_types(path, kind)
    try:
        atoms = read(path, index=-1 if frame is None else frame, format=kind)
    except (IndexError, StopIteration):
        if frame is None:
            raise
        raise InputError(describe("frame", frame, f"one of the frames in {path}")) from None
    if frame is None and len(read(path, index=slice(0, 2), format=kind)) > 1:
        notify(f"structure: of several frames in {path}, the last one is taken")
    if kind == "cif":
        check_crystal(path, atoms)
    return atoms


def _check_types(path: Path, kind: str) -> None:
    """Refuse LAMMPS files whose numbers of types would be taken for atomic numbers."""
    if kind not in ("lammps-data", "lammps-dump-text"):
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if kind == "lammps-data":
        told = any(line.strip().startswith("Masses") for line in text.splitlines())
    else:
        heads = [line.split() for line in text.splitlines() if line.startswith("ITEM: ATOMS")]
        told = all({"element", "mass"} & set(words) for words in heads)
    if not told:
        expected = "elements (dump_modify element, or a section Masses) in a LAMMPS file"
        raise InputError(describe("structure", f"numbers of types in {path}", expected))
