"""Structures of ASE as OpenMM topologies, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from openmm import app, unit

from ..boundaries import FREE, SLAB, as_pbc, check_slab
from ..conditions import told_groups
from ..errors import InputError, describe, notify
from ..fragments import Fragments, read_groups
from ..total_charge import say_contradictions, told_charge
from ..units import ANGSTROM_PER_NM
from .box import reduce_box

# Constraints of ASE that change nothing here: the centre of mass is held by default anyway.
_HARMLESS = {"FixCom"}
# Steps (Å) between numbers in single precision that are worth a word.
_COARSE = 1e-3
# Masses (Da) beyond these are in another unit.
_MASSES = (0.01, 1e9)


@dataclass(frozen=True)
class SimulationStructure:
    """A structure in OpenMM's form.

    Parameters
    ----------
    topology : openmm.app.Topology
        With box vectors if periodic. Every atom is a residue when the structure was not read from
        a PDB, mmCIF or GRO file; there are no bonds then, and the model needs none.
    positions : numpy.ndarray, shape (N, 3), nm
        In the orientation of the box vectors.
    box : numpy.ndarray, shape (3, 3), nm, or None
        Rows are box vectors, in OpenMM's reduced form.
    total_charge : float, e
        What the structure says, 0 if nothing.
    rotation : numpy.ndarray, shape (3, 3)
        ``positions = original @ rotation.T``; vectors return as ``v @ rotation``.
    masses : numpy.ndarray, shape (N,), Da
        0 for atoms that are held fixed, as OpenMM has it; by default those of the elements.
    charge_given : bool
        Whether the structure says what its total charge is.
    constraints : tuple of str
        Constraints that OpenMM has no counterpart of here, for example ``FixBondLengths``.
    slab : bool
        Whether the structure is a slab; hand it over as the argument of
        :func:`~openmm_nequiplr.create_system` of that name.
    charge_groups : numpy.ndarray, int64, shape (N,), optional
    group_charges : numpy.ndarray, shape (F,), e, optional
        Groups of atoms whose charges are held, as far as the structure tells them; hand them over
        under the same names.
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
        """Atomic numbers, positions (Å) and box vectors (Å)."""
        numbers = np.array([atom.element.atomic_number for atom in self.topology.atoms()])
        box = None if self.box is None else self.box * ANGSTROM_PER_NM
        return numbers, self.positions * ANGSTROM_PER_NM, box

    @property
    def frozen(self) -> np.ndarray:
        """Whether each atom is held fixed, bool, shape (N,)."""
        return np.asarray(self.masses == 0.0)


def element_symbols(topology: app.Topology) -> list[str]:
    """Element symbol of each atom, ``"?"`` where the topology has none; deuterium is hydrogen."""
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
    """Convert a structure to OpenMM's form.

    Cells of any shape and orientation are accepted: box and positions are rotated together where
    OpenMM's reduced form demands it.

    Parameters
    ----------
    atoms : ase.Atoms, or any object with ``symbols``, ``positions`` (Å), ``cell`` (Å) and ``pbc``
        Periodic in all three directions, in none, or (true, true, false) for a slab, whose normal
        becomes z. The total charge is that of
        :func:`openmm_nequiplr.total_charge.told_charge`. Masses are taken where they are set, and
        ``FixAtoms`` or other constraints that hold all three coordinates make them 0.

    Raises
    ------
    InputError
        If there are no atoms, an element is unknown, a position or mass is no finite number, or the
        structure is periodic in other directions.
    BoxError
        If the cell is degenerate, or none of a slab.
    """
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
    """Charge groups that a structure tells."""
    groups, charges = told_groups(atoms)
    if groups is None:
        return None
    notify(
        "structure: it has charge groups; nequiplr md and nequiplr export go by them, "
        "create_system and create_force take charge_groups and group_charges"
    )
    return read_groups(len(atoms.symbols), groups, charges, charge)


def say_turned(cell: np.ndarray, rotation: np.ndarray) -> None:
    """Say that a structure had to be rotated, or its cell made right-handed."""
    if np.abs(rotation - np.eye(3)).max() > 1e-6:
        notify(
            "structure: its cell is rotated, positions with it, into OpenMM's orientation (first "
            "vector along x, second in the xy plane); so are all results"
        )
    if np.linalg.det(cell) < 0.0:
        notify("structure: its cell is left-handed; the third vector is reversed, same lattice")


def say_far(structure: SimulationStructure) -> None:
    """Say that a trajectory, in single precision, is coarse so far from the origin."""
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
    """Make an ``ase.Atoms`` from OpenMM's view of a system.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : numpy.ndarray, shape (N, 3), nm
    box : numpy.ndarray, shape (3, 3), nm, optional
        Rows are box vectors.
    rotation : numpy.ndarray, shape (3, 3), optional
        Rotation of :class:`SimulationStructure`, to return to the original orientation.
    masses : numpy.ndarray, shape (N,), Da, optional
        0 becomes ``FixAtoms``; others are set where they are not those of the elements.
    slab : bool
        Whether a structure with a box is a slab.
    """
    from ase import Atoms
    from ase.constraints import FixAtoms

    back = np.eye(3) if rotation is None else rotation
    atoms = Atoms(
        symbols=element_symbols(topology),
        positions=np.asarray(positions) @ back * ANGSTROM_PER_NM,
        cell=None if box is None else np.asarray(box) @ back * ANGSTROM_PER_NM,
        pbc=FREE if box is None else (True, True, not slab),
    )
    if masses is None:
        return atoms
    moving, usual = np.asarray(masses) != 0.0, element_masses(topology)
    if not np.allclose(masses[moving], usual[moving], rtol=1e-6, atol=0.0):
        atoms.set_masses(np.where(moving, masses, usual))
    if not moving.all():
        atoms.set_constraint(FixAtoms(mask=~moving))
    return atoms


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


def _masses(atoms: Any, usual: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Masses (Da, 0 for fixed atoms) and the constraints that are left over."""
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
