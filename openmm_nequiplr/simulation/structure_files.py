"""Readers of structure files of all supported formats."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit
from openmm.app.internal.pdbx.reader.PdbxContainers import DataCategory, DataContainer
from openmm.app.internal.pdbx.writer.PdbxWriter import PdbxWriter

from ..conditions import ELECTRODE
from ..data import read_runner
from ..errors import InputError, NequIPLRError, NequIPLRWarning, describe, notify
from ..files.ase_frames import ase_frames, check_cell_entry, check_types, kind_of, text_of
from ..files.content import FileContent, choose_frame, say_sites
from ..files.mmcif import MODEL, PLACE
from ..files.records import record_readers
from ..units import ANGSTROM_PER_NM
from .box import reduce_box
from .topology import SimulationStructure, from_atoms, say_turned

# Formats with a topology that mdtraj reads.
_MDTRAJ_SUFFIXES = {".h5", ".hdf5", ".mol2"}


def read_structure(path: str | Path, frame: int | None = None) -> SimulationStructure:
    """Read a structure file: all atoms in the order of the file, cell, masses, total charge.

    OpenMM reads PDB and mmCIF files, mdtraj HDF5 and MOL2 files, and ASE all other formats
    (extended XYZ, CIF, POSCAR, trajectories …). A :class:`~openmm_nequiplr.errors.NequIPLRWarning`
    reports ambiguities and changes: elements inferred from names, alternate locations, omitted
    virtual sites, several frames, a rotated cell.

    Parameters
    ----------
    path : path
    frame : int, optional
        Index of the frame; negative numbers count from the end. By default the last one.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    InputError
        If it cannot be read without loss.
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
        readers = record_readers(path)
        if readers is None:
            return from_atoms(_from_ase(path, frame))
        return _structure(path, readers.one(path, frame))
    except (NequIPLRError, NequIPLRWarning, PermissionError):
        raise
    except ImportError as error:
        got = f"{path}, whose reader needs {error.name or 'a package'}, which is not installed"
        raise InputError(f"structure: expected a readable file, got {got}") from error
    except Exception as error:  # readers raise errors of any type
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"unknown entry {reason}"
    return InputError(f"structure: expected a readable file, got {path} ({reason})")


def _structure(path: Path, content: FileContent) -> SimulationStructure:
    topology, rotation, box = _topology(path, content), np.eye(3), None
    if topology.getNumAtoms() == 0:
        raise InputError(describe("structure", f"no atoms in {path}", "at least one atom"))
    topology.setPeriodicBoxVectors(None)
    if content.cell is not None:
        reduced = reduce_box(content.cell)
        rotation, box = reduced.rotation, reduced.vectors / ANGSTROM_PER_NM
        topology.setPeriodicBoxVectors(unit.Quantity(box, unit.nanometer))
        say_turned(content.cell, rotation)
    return SimulationStructure(
        topology,
        content.positions[content.atoms] @ rotation.T / ANGSTROM_PER_NM,
        box,
        content.charge or 0.0,
        rotation,
        charge_given=content.charge is not None,
    )


def _topology(path: Path, content: FileContent) -> app.Topology:
    """The topology of the atoms in a file, without virtual sites."""
    say_sites(path, content)
    topology = content.source
    if isinstance(topology, str):
        topology = _of_records(path, content)
    elif isinstance(topology, tuple):
        topology = _of_rows(path, *topology)
    elif topology is None:
        topology = _of_names(content)
    sites = [atom for atom in topology.atoms() if atom.element is None]
    if not sites:
        return topology
    modeller = app.Modeller(topology, content.positions * unit.angstrom)
    modeller.delete(sites)
    return modeller.topology


def _of_records(path: Path, content: FileContent) -> app.Topology:
    """OpenMM topology of PDB records, if OpenMM reads all atoms."""
    pdb = app.PDBFile(io.StringIO(content.source))
    symbols = tuple(a.element.symbol if a.element else None for a in pdb.topology.atoms())
    if symbols != content.symbols:
        got = f"{len(symbols)} of the {len(content.symbols)} in {path}"
        raise InputError(describe("structure", got, "all atoms in their order"))
    return pdb.topology


def _of_rows(path: Path, rows: list[dict[str, str]], bonds: Any) -> app.Topology:
    """OpenMM topology of rows of mmCIF, as for a file of one model without cell."""
    fixed = {MODEL: "1", "label_alt_id": ".", **dict.fromkeys(PLACE, "0")}
    plain = [{"label_seq_id": "."} | row | fixed for row in rows]
    names = list(plain[0])
    container = DataContainer("frame")
    container.append(DataCategory("atom_site", names, [[row[n] for n in names] for row in plain]))
    if bonds is not None:
        container.append(bonds)
    text = io.StringIO()
    PdbxWriter(text).write([container])
    text.seek(0)
    topology = app.PDBxFile(text).topology
    if topology.getNumAtoms() != len(rows):
        got = f"{topology.getNumAtoms()} of the {len(rows)} in {path}"
        raise InputError(describe("structure", got, "all atoms"))
    return topology


def _of_names(content: FileContent) -> app.Topology:
    topology = app.Topology()
    chain, last, residue = topology.addChain("A"), None, None
    for symbol, name, place in zip(content.symbols, content.names, content.residues, strict=True):
        if place != last:
            last, residue = place, topology.addResidue(place[0], chain, place[1])
        element = None if symbol is None else app.Element.getBySymbol(symbol)
        topology.addAtom(name, element, residue)
    topology.createStandardBonds()
    return topology


def _from_mdtraj(path: Path, frame: int | None) -> SimulationStructure:
    import mdtraj

    from .mdtraj_topology import from_mdtraj

    trajectory = mdtraj.load(str(path))
    return from_mdtraj(trajectory, choose_frame(path, frame, trajectory.n_frames))


def _from_ase(path: Path, frame: int | None) -> Any:
    """One frame of a file, read by ASE as ``ase.Atoms``."""
    kind = kind_of(path)
    if kind in ("proteindatabank", "gromacs"):
        expected = "the suffix .pdb or .gro for files of these formats, not compressed"
        raise InputError(describe("structure", str(path), expected))
    check_types(path, kind)
    if kind == "cif":
        crystals = list(ase_frames(path, kind))
        atoms: Any = crystals[choose_frame(path, frame, len(crystals))]
    elif kind == "runnerdata":
        atoms = _from_runner(path, frame)
    else:
        atoms = _one_of(path, frame, kind)
    formal = _charge_of_molfile(path) if kind in ("mol", "sdf") else None
    if formal is not None:
        atoms.info["total_charge"] = formal
    check_cell_entry(atoms)
    if "mass" in atoms.arrays:
        notify(f"structure: the column mass of {path} is not read; masses is")
    field, sides = atoms.info.get("electric_field", 0.0), atoms.arrays.get(ELECTRODE, 0)
    for name, told in (("electric_field", field), ("electrodes", sides)):
        if np.any(told):
            notify(
                f"structure: what {path} tells of {name} is not taken over: --"
                f"{name.replace('_', '-')}, or {name} of create_system, does (fields in V/nm)"
            )
    return atoms


def _from_runner(path: Path, frame: int | None) -> Any:
    from ase import Atoms

    structures = read_runner(path, say=notify)
    one = structures[choose_frame(path, frame, len(structures))]
    notify(f"structure: lengths in {path} are in Bohr, as in files of RuNNer")
    atoms = Atoms(one.symbols, one.positions, cell=one.cell, pbc=one.pbc)
    atoms.info["total_charge"] = one.total_charge
    return atoms


def _charge_of_molfile(path: Path) -> float | None:
    """Sum of the formal charges of a molecule, e; ``None`` if all are 0."""
    lines = text_of(path).partition("M  END")[0].splitlines()
    told = [line[9:].split()[1::2] for line in lines if line.startswith("M  CHG")]
    charges = [int(charge) for words in told for charge in words]
    if not told:  # codes in the atom block: 1 to 3 for +3 to +1, 5 to 7 for -1 to -3
        codes = [int(line[36:39] or 0) for line in lines[4 : 4 + int(lines[3][:3])]]
        charges = [4 - code for code in codes if code not in (0, 4)]
    if not any(charges):
        return None
    notify(f"total charge: {sum(charges):+d} e, the sum of the formal charges in {path}")
    return float(sum(charges))


def _one_of(path: Path, frame: int | None, kind: str) -> Any:
    from ase.io import read

    as_it_is: dict[str, Any] = {"format": kind, "do_not_split_by_at_sign": True}
    try:
        atoms = read(str(path), index=-1 if frame is None else frame, **as_it_is)
    except (IndexError, StopIteration):
        if frame is None:
            raise
        raise InputError(describe("frame", frame, f"one of the frames in {path}")) from None
    if frame is None and len(read(str(path), index=slice(0, 2), **as_it_is)) > 1:
        notify(
            f"structure: of several frames in {path}, the last one is taken, as no frame was named"
        )
    return atoms
