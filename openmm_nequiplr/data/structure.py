"""A configuration of atoms with reference labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..boundaries import FREE, SLAB, Pbc, as_pbc, check_slab
from ..conditions import ChargeConditions
from ..errors import InputError, describe
from ..fragments import read_groups
from ..lattice import check_cell
from ..whole import WholeMolecules
from .quantities import NAMED


@dataclass(frozen=True)
class Structure:
    """A configuration of N atoms and its known reference labels.

    Arrays are converted to float64 NumPy arrays. A label of ``None`` is unknown and does not enter
    losses or errors.

    Parameters
    ----------
    symbols : sequence of str
        Element symbols, one per atom (N).
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
        Rows are the cell vectors. Required if `pbc` is true, ignored otherwise.
    pbc : bool or three bool
        Periodic in all three directions, in none, or along the first two cell vectors (a slab,
        whose third cell vector is along its normal). Stored as a :class:`.boundaries.Pbc`, which is
        true if any direction is periodic.
    total_charge : float, e
    energy : float, eV, optional
        Total energy.
    forces : numpy.ndarray, shape (N, 3), eV/Å, optional
    charges : numpy.ndarray, shape (N,), e, optional
        Partial charges.
    dipole : numpy.ndarray, shape (3,), e Å, optional
        Σ q r.
    stress : numpy.ndarray, shape (3, 3), eV/Å³, optional
        Derivative of the energy by the strain, divided by the volume.
    born_charges : numpy.ndarray, shape (N, 3, 3), e, optional
        Born effective charges: ``[i, a, b]`` is the derivative of component a of the dipole by
        coordinate b of atom i.
    polarizability : numpy.ndarray, shape (3, 3), e Å²/V, optional
        Polarisability at fixed positions.
    electric_field : numpy.ndarray, shape (3,), V/Å, optional
        Uniform external field; for isolated structures, and along the normal of slabs.
    outside_potential : numpy.ndarray, shape (N,), V, optional
        Potential of outside charges at the atoms.
    outside_field : numpy.ndarray, shape (N, 3), V/Å, optional
        Field of these charges; required with their potential, as the forces depend on it.
    charge_groups : numpy.ndarray, shape (N,), optional
        Labels of the charge groups, whose charges are constrained; stored as numbers from 0 to
        F - 1.
    group_charges : numpy.ndarray, shape (F,), e, optional
        Charges of the groups in the order of their labels; by default 0.
    weight : float
        Weight of the structure in losses; 0 excludes it.
    synthetic : bool
        Whether the labels are not reference data. Such labels enter losses but not errors.
    origin : str
        File and index in it, for messages.

    Raises
    ------
    InputError
        If a shape is wrong, a number is not finite, or a periodic cell is missing or flat.
    BoxError
        If the cell is not suitable for a slab.
    """

    symbols: tuple[str, ...]
    positions: np.ndarray
    cell: np.ndarray | None = None
    pbc: Pbc = FREE
    total_charge: float = 0.0
    energy: float | None = None
    forces: np.ndarray | None = None
    charges: np.ndarray | None = None
    dipole: np.ndarray | None = None
    stress: np.ndarray | None = None
    born_charges: np.ndarray | None = None
    polarizability: np.ndarray | None = None
    electric_field: np.ndarray | None = None
    outside_potential: np.ndarray | None = None
    outside_field: np.ndarray | None = None
    charge_groups: np.ndarray | None = None
    group_charges: np.ndarray | None = None
    weight: float = 1.0
    synthetic: bool = False
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        symbols = tuple(str(s) for s in self.symbols)
        n = len(symbols)
        if n == 0:
            raise InputError(describe("symbols", "no atoms", "at least one atom"))
        pbc = as_pbc(self.pbc)
        if pbc == SLAB and self.cell is not None:
            check_slab(self.cell)
        checked: dict[str, object] = {
            "symbols": symbols,
            "positions": _array("positions", self.positions, (n, 3)),
            "pbc": pbc,
            "total_charge": _number("total_charge", self.total_charge),
            "cell": _cell(self.cell) if pbc else None,
        }
        checked["weight"] = weight = _number("weight", self.weight)
        if weight < 0.0:
            raise InputError(describe("weight", weight, "a number of at least 0"))
        if self.energy is not None:
            checked["energy"] = _number("energy", self.energy)
        for name, quantity in NAMED.items():
            value, shape = getattr(self, name), (n,) * quantity.per_atom + quantity.shape
            if value is not None and shape and name != "charge_groups":
                checked[name] = _array(name, value, shape)
        if (self.outside_potential is None) != (self.outside_field is None):
            lacking = "potential" if self.outside_potential is None else "field"
            expected = "both outside_potential and outside_field, or none"
            raise InputError(describe(f"outside_{lacking}", None, expected))
        held = read_groups(n, self.charge_groups, self.group_charges, self.total_charge)
        if held is not None:
            checked.update(charge_groups=held.groups, group_charges=held.charges)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def in_free_space(self) -> Structure:
        """Copy without a cell and a stress, with molecules made whole."""
        points = self.positions
        if self.cell is not None:
            points = WholeMolecules()(points, self.cell)
        return replace(self, positions=points, cell=None, pbc=FREE, stress=None)

    def without(self, *labels: str) -> Structure:
        """Copy without some of the labels."""
        unknown: dict[str, Any] = dict.fromkeys(labels)
        return replace(self, **unknown)

    def has_label(self, name: str) -> bool:
        """Whether it has a label of use.

        A dipole or polarisability in a cell is of none, nor is a stress without a cell.
        """
        if name in ("dipole", "polarizability", "stress") and bool(self.pbc) != (name == "stress"):
            return False
        return getattr(self, name) is not None

    @property
    def conditions(self) -> ChargeConditions:
        """What drives and holds its charges."""
        return ChargeConditions(self.electric_field, self.charge_groups, self.group_charges)

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.symbols)


def _array(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    try:
        if np.asarray(value).dtype == bool:
            raise TypeError
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(describe(name, value, f"numbers of shape {list(shape)}")) from None
    if array.shape != shape:
        raise InputError(describe(name, f"shape {list(array.shape)}", f"shape {list(shape)}"))
    if not np.isfinite(array).all():
        raise InputError(describe(name, "NaN or infinite values", "finite numbers"))
    return array


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool | np.bool_):  # a word of a comment, which ASE takes for a flag
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(describe(name, value, "one number")) from None
    if not np.isfinite(number):
        raise InputError(describe(name, number, "a finite number"))
    return number


def _cell(cell: object) -> np.ndarray:
    if cell is None:
        raise InputError(describe("cell", None, "three cell vectors for a periodic structure"))
    # readers compare lengths with those of other units before a tiny cell is refused
    return check_cell(_array("cell", cell, (3, 3)), shortest=0.0)
