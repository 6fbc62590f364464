"""One labelled configuration of atoms from a data file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..boundaries import FREE, SLAB, Pbc, as_pbc, check_slab
from ..errors import InputError, describe
from ..fragments import read_groups
from ..whole import WholeMolecules

#: What structures may be labelled with.
LABELS = ("energy", "forces", "charges", "dipole", "stress", "born_charges", "polarizability")


@dataclass(frozen=True)
class Structure:
    """A configuration and, where known, its reference labels.

    All arrays are float64 NumPy arrays; anything array-like is converted. A label that is
    ``None`` is unknown and takes no part in losses or error figures.

    Parameters
    ----------
    symbols : sequence of str
        Element symbols, one per atom (N).
    positions : array, shape [N, 3]
        Å.
    cell : array, shape [3, 3], or None
        Rows are the cell vectors, Å. Required when `pbc` is true, dropped otherwise.
    pbc : bool or three bool
        Periodic in all three directions, in none, or along the first two cell vectors: a slab, with
        the third one along its normal. Kept as a :class:`.boundaries.Pbc`, which is true if
        periodic along any.
    total_charge : float
        e.
    energy : float, optional
        Total energy, eV.
    forces : array, shape [N, 3], optional
        eV/Å.
    charges : array, shape [N], optional
        Partial charges, e.
    dipole : array, shape [3], optional
        Σ q r, e Å.
    stress : array, shape [3, 3], optional
        dE/dstrain / volume, eV/Å³.
    born_charges : array, shape [N, 3, 3], optional
        Born effective charges, e: ``[i, a, b]`` is the derivative of component a of the dipole by
        coordinate b of atom i.
    polarizability : array, shape [3, 3], optional
        At fixed positions, e Å²/V.
    electric_field : array, shape [3], optional
        Uniform field that the structure is in, V/Å; of isolated structures, and along the normal of
        slabs.
    outside_potential : array, shape [N], optional
        Of charges outside at the atoms, V.
    outside_field : array, shape [N, 3], optional
        Of these charges, V/Å; known with their potential, or forces would lack it.
    charge_groups : array, shape [N], optional
        Labels of groups of atoms whose charges are held; kept as numbers from 0 to F - 1.
    group_charges : array, shape [F], optional
        Charges of the groups in the order of their labels, e; by default 0.
    weight : float
        Of this structure in losses; 0 leaves it out.
    synthetic : bool
        The labels are no reference: they count in losses, not in errors.
    origin : str
        File and place in it, for messages.

    Raises
    ------
    InputError
        If a shape is wrong, a number is not finite, or a periodic cell is missing or flat.
    BoxError
        If the cell is none of a slab.
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
        for name, shape in (
            ("forces", (n, 3)),
            ("charges", (n,)),
            ("dipole", (3,)),
            ("stress", (3, 3)),
            ("born_charges", (n, 3, 3)),
            ("polarizability", (3, 3)),
            ("electric_field", (3,)),
            ("outside_potential", (n,)),
            ("outside_field", (n, 3)),
        ):
            value = getattr(self, name)
            if value is not None:
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
        """The same atoms and labels without a cell, molecules whole, and without a stress."""
        points = self.positions
        if self.cell is not None:
            points = WholeMolecules()(points, self.cell)
        return replace(self, positions=points, cell=None, pbc=FREE, stress=None)

    def without(self, *labels: str) -> Structure:
        """The same atoms without some of the labels."""
        unknown: dict[str, Any] = dict.fromkeys(labels)
        return replace(self, **unknown)

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
    array = _array("cell", cell, (3, 3))
    lengths = np.linalg.norm(array, axis=1)
    if abs(np.linalg.det(array)) <= 1e-8 * np.prod(np.maximum(lengths, 1e-12)):
        raise InputError(describe("cell", array.tolist(), "three independent cell vectors"))
    return array
