"""Structures of files and of ASE as OpenMM topologies, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from ..errors import BoxError, InputError, describe
from ..units import ANGSTROM_PER_NM
from .box import reduce_box

_OPENMM_READERS = {".pdb": app.PDBFile, ".cif": app.PDBxFile, ".pdbx": app.PDBxFile}
# Formats with a topology of their own that mdtraj reads.
_MDTRAJ_SUFFIXES = {".gro", ".h5", ".hdf5", ".mol2"}


@dataclass(frozen=True)
class SimulationStructure:
    """What OpenMM needs to know of a structure.

    Parameters
    ----------
    topology : openmm.app.Topology
        With box vectors if periodic. Every atom is a residue when the structure was not read from
        a PDB or mmCIF file; there are no bonds then, and the model needs none.
    positions : numpy.ndarray, shape (N, 3), nm
        In the orientation of the box vectors.
    box : numpy.ndarray, shape (3, 3), nm, or None
        Rows are box vectors, in OpenMM's reduced form.
    total_charge : float, e
        What the structure says, 0 if nothing.
    rotation : numpy.ndarray, shape (3, 3)
        ``positions = original @ rotation.T``; vectors return as ``v @ rotation``.
    """

    topology: app.Topology
    positions: np.ndarray
    box: np.ndarray | None
    total_charge: float
    rotation: np.ndarray

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return int(self.topology.getNumAtoms())


def element_symbols(topology: app.Topology) -> list[str]:
    """Element symbol of each atom, ``"?"`` where the topology has none."""
    return [atom.element.symbol if atom.element else "?" for atom in topology.atoms()]


def from_atoms(atoms: Any) -> SimulationStructure:
    """Convert a structure to OpenMM's form.

    Cells of any shape and orientation are accepted: box and positions are rotated together where
    OpenMM's reduced form demands it.

    Parameters
    ----------
    atoms : ase.Atoms, or any object with ``symbols``, ``positions`` (Å), ``cell`` (Å) and ``pbc``
        Periodic in all three directions or in none. The total charge is taken from
        ``atoms.info["total_charge"]`` (or ``"charge"``), or from ``atoms.total_charge``.

    Raises
    ------
    InputError
        If there are no atoms, or an element is unknown.
    BoxError
        If the structure is periodic in some directions only, or its cell is degenerate.
    """
    symbols = [str(symbol) for symbol in atoms.symbols]
    if not symbols:
        raise InputError(describe("atoms", "no atoms", "at least one atom"))
    positions = np.asarray(atoms.positions, dtype=np.float64)
    pbc = np.atleast_1d(np.asarray(atoms.pbc, dtype=bool))
    if pbc.any() and not pbc.all():
        raise BoxError(
            describe("pbc", pbc.tolist(), "all directions or none; give a slab a cell with vacuum")
        )
    topology = _bare_topology(symbols)
    rotation, box = np.eye(3), None
    if pbc.all():
        reduced = reduce_box(np.array(atoms.cell))
        rotation, box = reduced.rotation, reduced.vectors / ANGSTROM_PER_NM
        topology.setPeriodicBoxVectors(unit.Quantity(box, unit.nanometer))
    return SimulationStructure(
        topology, positions @ rotation.T / ANGSTROM_PER_NM, box, _total_charge(atoms), rotation
    )


def read_structure(path: str | Path) -> SimulationStructure:
    """Read a structure file: PDB and mmCIF by OpenMM, others by mdtraj or ASE.

    mdtraj reads GRO, HDF5 and MOL2 files, ASE anything else (extended XYZ …). Of several frames
    the last one is taken by ASE, the first one by OpenMM and mdtraj.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    InputError
        If it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"structure: expected an existing file, got {path}")
    reader = _OPENMM_READERS.get(path.suffix.lower())
    try:
        if path.suffix.lower() in _MDTRAJ_SUFFIXES:
            import mdtraj

            from .mdtraj_topology import from_mdtraj

            return from_mdtraj(mdtraj.load(str(path)))
        if reader is None:
            from ase.io import read

            return from_atoms(read(path))
        content = reader(str(path))
    except (InputError, PermissionError):
        raise
    except Exception as error:  # readers raise whatever they please
        raise InputError(f"structure: expected a readable file, got {path} ({error})") from error
    positions = np.array(content.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    vectors = content.topology.getPeriodicBoxVectors()
    box = None if vectors is None else np.array(vectors.value_in_unit(unit.nanometer))
    return SimulationStructure(content.topology, positions, box, 0.0, np.eye(3))


def to_atoms(
    topology: app.Topology,
    positions: np.ndarray,
    box: np.ndarray | None = None,
    rotation: np.ndarray | None = None,
) -> Any:
    """Make an ``ase.Atoms`` from OpenMM's view of a system.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : numpy.ndarray, shape (N, 3), nm
    box : numpy.ndarray, shape (3, 3), nm, optional
        Rows are box vectors.
    rotation : numpy.ndarray, shape (3, 3), optional
        Rotation of :class:`SimulationStructure`, to return to the original orientation.
    """
    from ase import Atoms

    back = np.eye(3) if rotation is None else rotation
    return Atoms(
        symbols=element_symbols(topology),
        positions=np.asarray(positions) @ back * ANGSTROM_PER_NM,
        cell=None if box is None else np.asarray(box) @ back * ANGSTROM_PER_NM,
        pbc=box is not None,
    )


def _bare_topology(symbols: list[str]) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain("A")
    for index, symbol in enumerate(symbols):
        try:
            element = app.Element.getBySymbol(symbol)
        except KeyError:
            expected = "an element symbol that OpenMM knows"
            raise InputError(describe(f"symbol of atom {index}", symbol, expected)) from None
        # a residue each: PDB files tell atoms of one residue apart by names of four letters
        topology.addAtom(symbol, element, topology.addResidue(symbol.upper(), chain))
    return topology


def _total_charge(atoms: Any) -> float:
    info = getattr(atoms, "info", {})
    for key in ("total_charge", "charge"):
        if key in info:
            return float(info[key])
    return float(getattr(atoms, "total_charge", 0.0))
