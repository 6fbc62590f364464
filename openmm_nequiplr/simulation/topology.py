"""Conversion between ASE structures and OpenMM topologies."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from openmm import app, unit

from ..boundaries import FREE, SLAB, as_pbc, check_slab
from ..conditions import told_groups
from ..errors import InputError, describe, notify
from ..fragments import Fragments, nearby_bonds, read_groups
from ..total_charge import say_contradictions, told_charge
from ..units import ANGSTROM_PER_NM
from .box import reduce_box
from .quantities import without_unit

#: Sources of bonds, for errors.
WHENCE_BONDS = (
    "topology.createStandardBonds() makes those of residues, and with_bonds() of a structure from "
    "read_structure or from_atoms finds them by distance"
)
# ASE constraints without effect here: the centre of mass is fixed by default.
_HARMLESS = {"FixCom"}
# Spacing of single-precision numbers (Å) above which a warning is given.
_COARSE = 1e-3
# Masses (Da) outside this range indicate a wrong unit.
_MASSES = (0.01, 1e9)


@dataclass(frozen=True)
class SimulationStructure:
    """A structure in OpenMM's conventions.

    Parameters
    ----------
    topology : openmm.app.Topology
        With box vectors if periodic. Unless the structure was read from a PDB, mmCIF or GRO file,
        every atom is a residue and there are no bonds (:meth:`with_bonds` adds them); models do not
        need bonds.
    positions : numpy.ndarray, shape (N, 3), nm
        In the orientation of the box vectors.
    box : numpy.ndarray, shape (3, 3), nm, or None
        Rows are box vectors, in OpenMM's reduced form.
    total_charge : float, e
        As specified by the structure, otherwise 0.
    rotation : numpy.ndarray, shape (3, 3)
        ``positions = original @ rotation.T``; ``v @ rotation`` rotates vectors back.
    masses : numpy.ndarray, shape (N,), Da
        By default those of the elements; 0 for fixed atoms, as in OpenMM.
    charge_given : bool
        Whether the structure specifies its total charge.
    constraints : tuple of str
        Constraints without a counterpart in OpenMM here, for example ``FixBondLengths``.
    slab : bool
        Whether the structure is a slab; pass it to :func:`~openmm_nequiplr.create_system` under
        this name.
    charge_groups : numpy.ndarray, int64, shape (N,), optional
    group_charges : numpy.ndarray, shape (F,), e, optional
        Groups of atoms with constrained total charges, if the structure specifies them; pass them
        to :func:`~openmm_nequiplr.create_system` under these names.
    """

    topology: app.Topology
    positions: np.ndarray
    box: np.ndarray | None
    total_charge: float
    rotation: np.ndarray
    masses: np.ndarray = None  # type: ignore[assignment]
    charge_given: bool = False
    constraints: tuple[str, ...] = ()
    slab: bool = False
    charge_groups: np.ndarray | None = None
    group_charges: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.masses is None:
            object.__setattr__(self, "masses", element_masses(self.topology))

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return int(self.topology.getNumAtoms())

    def plain(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Atomic numbers, shape (N,), positions (Å) and box vectors (Å)."""
        numbers = np.array([atom.element.atomic_number for atom in self.topology.atoms()])
        box = None if self.box is None else self.box * ANGSTROM_PER_NM
        return numbers, self.positions * ANGSTROM_PER_NM, box

    def with_bonds(self) -> SimulationStructure:
        """The structure with bonds in its topology, for ``hydrogenMass`` and ``charge_groups``.

        If there are none, atoms closer than 1.25 times the sum of their covalent radii are bonded.
        """
        if self.topology.getNumBonds():
            return self
        topology = copy.deepcopy(self.topology)
        atoms = list(topology.atoms())
        for first, second in zip(*nearby_bonds(*self.plain()), strict=True):
            topology.addBond(atoms[first], atoms[second])
        return dataclasses.replace(self, topology=topology)

    @property
    def frozen(self) -> np.ndarray:
        """Whether each atom is fixed, bool, shape (N,)."""
        return np.asarray(self.masses == 0.0)


def element_symbols(topology: app.Topology) -> list[str]:
    """Element symbol of each atom, ``"?"`` for atoms without element; deuterium becomes H."""
    return [
        app.Element.getByAtomicNumber(a.element.atomic_number).symbol if a.element else "?"
        for a in topology.atoms()
    ]


def element_masses(topology: app.Topology) -> np.ndarray:
    """Masses of the elements, shape (N,), Da; 0 for virtual sites."""
    masses = [a.element.mass.value_in_unit(unit.dalton) if a.element else 0.0
              for a in topology.atoms()]  # fmt: skip
    return np.array(masses, dtype=np.float64)


def from_atoms(atoms: Any) -> SimulationStructure:
    """Convert an ASE structure to OpenMM's conventions.

    Cells of any shape and orientation are accepted. Box and positions are rotated together if
    OpenMM's reduced form requires it.

    Parameters
    ----------
    atoms : ase.Atoms, or any object with ``symbols``, ``positions`` (Å), ``cell`` (Å) and ``pbc``
        Periodic in all three directions, in none, or (true, true, false) for a slab, whose normal
        becomes z. The total charge is that of
        :func:`openmm_nequiplr.total_charge.told_charge`. Explicit masses are used. Atoms under
        ``FixAtoms`` or other constraints of all three coordinates get mass 0.

    Raises
    ------
    InputError
        If there are no atoms, this is no structure, an element is unknown, a position or mass is
        not finite, or the structure is periodic in other directions.
    BoxError
        If the cell is degenerate, or not that of a slab.
    """
    if not hasattr(atoms, "symbols"):
        raise InputError(describe("atoms", type(atoms).__name__, "an ase.Atoms"))
    symbols = [str(symbol) for symbol in atoms.symbols]
    if not symbols:
        raise InputError(describe("atoms", "no atoms", "at least one atom"))
    positions = np.asarray(atoms.positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        raise InputError(describe("positions", "NaN or infinite values", "finite numbers"))
    pbc = as_pbc(atoms.pbc)
    if pbc == SLAB:
        check_slab(np.array(atoms.cell))
        notify(
            "structure: its pbc are those of a slab; nequiplr md and nequiplr export go by them, "
            "create_system and create_force take slab=True"
        )
    topology = _bare_topology(symbols)
    rotation, box = np.eye(3), None
    if pbc:
        reduced = reduce_box(np.array(atoms.cell))
        rotation, box = reduced.rotation, reduced.vectors / ANGSTROM_PER_NM
        topology.setPeriodicBoxVectors(unit.Quantity(box, unit.nanometer))
        say_turned(np.array(atoms.cell), rotation)
    charge = told_charge(atoms)
    say_contradictions(atoms, charge)
    held = _held_groups(atoms, charge)
    masses, constraints = _masses(atoms, element_masses(topology))
    return SimulationStructure(
        topology,
        positions @ rotation.T / ANGSTROM_PER_NM,
        box,
        charge or 0.0,
        rotation,
        masses,
        charge is not None,
        constraints,
        pbc == SLAB,
        *(held or (None, None)),
    )


def _held_groups(atoms: Any, charge: float | None) -> Fragments | None:
    """Charge groups that a structure specifies."""
    groups, charges = told_groups(atoms)
    if groups is None:
        return None
    notify(
        "structure: it has charge groups; nequiplr md and nequiplr export go by them, "
        "create_system and create_force take charge_groups and group_charges"
    )
    return read_groups(len(atoms.symbols), groups, charges, charge)


def say_turned(cell: np.ndarray, rotation: np.ndarray) -> None:
    """Give notice that a structure was rotated, or its cell made right-handed."""
    if np.abs(rotation - np.eye(3)).max() > 1e-6:
        notify(
            "structure: its cell is rotated, positions with it, into OpenMM's orientation (first "
            "vector along x, second in the xy plane); so are all results"
        )
    if np.linalg.det(cell) < 0.0:
        notify("structure: its cell is left-handed; the third vector is reversed, same lattice")


def say_far(structure: SimulationStructure) -> None:
    """Warn if positions are so far from the origin that single precision is too coarse."""
    farthest = ANGSTROM_PER_NM * float(np.abs(structure.positions).max())
    step = float(np.spacing(np.float32(farthest)))
    if step > _COARSE:
        notify(
            f"structure: its atoms are up to {farthest:.3g} Å from the origin, where trajectories "
            f"tell places to {step:.1g} Å only; move it there"
        )


def to_atoms(
    topology: app.Topology,
    positions: np.ndarray,
    box: np.ndarray | None = None,
    rotation: np.ndarray | None = None,
    masses: np.ndarray | None = None,
    slab: bool = False,
) -> Any:
    """Convert an OpenMM topology and positions to ``ase.Atoms``.

    Parameters
    ----------
    topology : openmm.app.Topology
        Without virtual sites.
    positions : numpy.ndarray (nm) or Quantity, shape (N, 3)
    box : numpy.ndarray (nm) or Quantity, shape (3, 3), optional
        Rows are box vectors.
    rotation : numpy.ndarray, shape (3, 3), optional
        Rotation of :class:`SimulationStructure`, to restore the original orientation.
    masses : numpy.ndarray, shape (N,), Da, optional
        By default those of the elements, also of deuterium. Mass 0 becomes ``FixAtoms``. Other
        masses are set if they differ from those of the elements.
    slab : bool
        Whether a structure with a box is a slab.

    Raises
    ------
    InputError
        If an atom has no element, or positions or box have the wrong shape or unit.
    """
    from ase import Atoms
    from ase.constraints import FixAtoms

    symbols, back = element_symbols(topology), np.eye(3) if rotation is None else rotation
    if "?" in symbols:
        expected = "an element for every atom (Modeller.delete leaves out virtual sites)"
        raise InputError(describe("topology", f"none for atom {symbols.index('?')}", expected))
    cell = None if box is None else _lengths("box", box, 3)
    atoms = Atoms(
        symbols=symbols,
        positions=_lengths("positions", positions, len(symbols)) @ back * ANGSTROM_PER_NM,
        cell=None if cell is None else cell @ back * ANGSTROM_PER_NM,
        pbc=FREE if box is None else (True, True, not slab),
    )
    masses = element_masses(topology) if masses is None else np.asarray(masses)
    of_symbols = [app.Element.getBySymbol(symbol).mass for symbol in symbols]  # D has become H
    moving, usual = masses != 0.0, np.array([mass._value for mass in of_symbols])
    if not np.allclose(masses[moving], usual[moving], rtol=1e-6, atol=0.0):
        atoms.set_masses(np.where(moving, masses, usual))
    if not moving.all():
        atoms.set_constraint(FixAtoms(mask=~moving))
    return atoms


def _lengths(name: str, given: Any, count: int) -> np.ndarray:
    """Vectors, shape (count, 3), in nm, from numbers or Quantities."""
    expected = f"shape ({count}, 3), in nm or with a unit of length"
    plain = without_unit(name, given, unit.nanometer, expected)
    try:
        values = np.array([without_unit(name, each, unit.nanometer, expected) for each in plain])
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (count, 3):
        raise InputError(describe(name, given, expected))
    return values


def _bare_topology(symbols: list[str]) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain("A")
    for index, symbol in enumerate(symbols):
        try:
            element = app.Element.getBySymbol(symbol)
        except KeyError:
            expected = "an element symbol that OpenMM knows"
            raise InputError(describe(f"symbol of atom {index}", symbol, expected)) from None
        # one residue per atom: PDB files distinguish atoms of a residue by names of four letters
        topology.addAtom(symbol, element, topology.addResidue(symbol.upper(), chain))
    return topology


def _masses(atoms: Any, usual: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Masses (Da, 0 for fixed atoms) and the names of other constraints."""
    from ase.data import atomic_masses

    masses = usual.copy()
    if getattr(atoms, "has", lambda name: False)("masses"):
        masses = np.array(atoms.get_masses(), dtype=np.float64)
        low, high = _MASSES
        bad = np.flatnonzero(~((masses == 0.0) | ((masses >= low) & (masses <= high))))
        if bad.size:
            where = f"masses[{bad[0]}]"
            expected = f"a mass in Da from {low:g} to {high:g}, or 0 for a fixed atom"
            raise InputError(describe(where, float(masses[bad[0]]), expected))
        same = np.isclose(masses, atomic_masses[atoms.numbers], rtol=1e-6)  # ASE's own table
        masses[same] = usual[same]
    left: list[str] = []
    for constraint in getattr(atoms, "constraints", []):
        name = type(constraint).__name__
        mask = np.atleast_1d(getattr(constraint, "mask", True))
        if name == "FixAtoms" or (name in ("FixCartesian", "FixScaled") and mask.all()):
            masses[constraint.index] = 0.0
        elif name in ("FixCartesian", "FixScaled") and not mask.any():
            continue
        elif name not in _HARMLESS:
            left.append(name)
    return masses, tuple(dict.fromkeys(left))
