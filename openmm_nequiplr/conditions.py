"""Conditions on the charges of a structure: field, electrodes, constrained charges of groups."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import is_number
from .errors import InputError, describe
from .fragments import Fragments, Groups, group_labels, read_groups
from .total_charge import GROUP_CHARGES

#: Column of ``atoms.arrays`` with the groups, and entry of ``atoms.info`` with their charges.
COLUMN, ENTRY = "charge_group", GROUP_CHARGES
#: Column with 1 and 2 for atoms of the first and second electrode, and entry with the voltage.
ELECTRODE, VOLTAGE = "electrode", "electrode_voltage"
#: Entry of ``atoms.info`` with a uniform electric field, V/Å.
FIELD = "electric_field"
#: Largest voltage, V.
HIGHEST_VOLTAGE = 100.0


@dataclass(frozen=True)
class ChargeConditions:
    """Conditions on the charges of a structure of N atoms; by default none.

    Parameters
    ----------
    electric_field : sequence of 3 float, optional, V/Å
        Uniform external field: on isolated structures, along the normal of slabs, or on structures
        with constrained charges of groups, which are then unwrapped.
    charge_groups : sequence of N int, or sequence of sequences of int, optional
        Groups of atoms whose charges are constrained: a label for each atom, or lists of the
        indices of atoms. Atoms in no list form one more group.
    group_charges : sequence of float, optional, e
        Charges of the groups, by default 0; they must sum to the total charge.
    electrodes : sequence of 2 sequences of int, optional
        Indices of the atoms of two electrodes. Groups with such atoms are merged into one group
        with the sum of their charges.
    electrode_voltage : float, V
        Potential of the first electrode minus that of the second.
    """

    electric_field: Sequence[float] | np.ndarray | None = None
    charge_groups: Groups = None
    group_charges: Sequence[float] | np.ndarray | None = None
    electrodes: Sequence[Sequence[int]] | None = None
    electrode_voltage: float = 0.0

    @classmethod
    def told_by(cls, atoms: Any) -> ChargeConditions:
        """Conditions specified by an ``ase.Atoms``, unchecked.

        They are the entries ``electric_field``, ``group_charges`` and ``electrode_voltage`` of its
        info, and the columns ``charge_group`` and ``electrode`` (see :data:`ELECTRODE`) of its
        arrays.

        Raises
        ------
        InputError
            If the column of electrodes contains values other than 0, 1 and 2.
        """
        info, arrays = getattr(atoms, "info", {}), getattr(atoms, "arrays", {})
        electrodes = _told_electrodes(arrays.get(ELECTRODE))
        voltage = 0.0 if electrodes is None else info.get(VOLTAGE, 0.0)
        return cls(info.get(FIELD), *told_groups(atoms), electrodes, voltage)

    def tell(self, atoms: Any) -> None:
        """Store the conditions in an ``ase.Atoms``; see :meth:`told_by`."""
        if self.electric_field is not None:
            atoms.info[FIELD] = np.array(self.electric_field)
        if self.charge_groups is not None:
            atoms.arrays[COLUMN] = np.asarray(self.charge_groups, dtype=np.int64)
            atoms.info[ENTRY] = np.asarray(self.group_charges, dtype=np.float64)
        if self.electrodes is not None:
            side = np.array(read_electrodes(len(atoms), self.electrodes))
            atoms.arrays[ELECTRODE] = np.where(side < 0, 2, side)
            atoms.info[VOLTAGE] = self.electrode_voltage

    def same(self, other: ChargeConditions) -> bool:
        """Whether all conditions are equal."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(
            np.array_equal(*pair)
            if any(isinstance(each, np.ndarray) for each in pair)
            else pair[0] == pair[1]
            for pair in pairs
        )

    def held(self, count: int, total_charge: float) -> Fragments | None:
        """Groups of ``count`` atoms, with those of electrodes merged; ``None`` for a single group.

        The total charge (e) constrains a single group already. Raises the errors of
        :func:`.fragments.read_groups` and :func:`read_electrodes`.
        """
        found = read_groups(count, self.charge_groups, self.group_charges, total_charge)
        found = with_electrodes(found, read_electrodes(count, self.electrodes))
        return None if found is None or len(found.charges) == 1 else found


#: No conditions.
UNCONDITIONED = ChargeConditions()


def with_electrodes(held: Fragments | None, sides: np.ndarray | None) -> Fragments | None:
    """Merge all groups that contain atoms of electrodes into one, with the sum of their charges.

    Parameters
    ----------
    held : Fragments or None
    sides : numpy.ndarray or None, shape (N,)
        Result of :func:`read_electrodes`.
    """
    if held is None or sides is None:
        return held
    names, touched = np.arange(len(held.charges)), np.unique(held.groups[sides != 0])
    names[touched] = touched[0]
    numbers = np.unique(names, return_inverse=True)[1].reshape(-1)
    return Fragments(numbers[held.groups], np.bincount(numbers, held.charges))


def plain_electrodes(electrodes: Any) -> tuple[Any, ...] | None:
    """Two electrodes as tuples of the indices of their atoms, or as names; ``None`` if absent.

    Raises
    ------
    InputError
        If the argument is invalid.
    """
    if electrodes is None:
        return None
    try:
        found = [e if isinstance(e, str) else tuple(map(operator.index, e)) for e in electrodes]
    except TypeError:
        found = []
    if len(found) != 2 or isinstance(electrodes, str):
        expected = "two of them, each a list of the indices of atoms"
        raise InputError(describe("electrodes", electrodes, expected))
    return tuple(found)


def read_electrodes(count: int, electrodes: Any) -> np.ndarray | None:
    """Electrode of each of ``count`` atoms, int64, shape (N,): 1 and −1 on two electrodes, else 0.

    Parameters
    ----------
    count : int
        Number N of atoms.
    electrodes : sequence of 2 sequences of int, optional
        Indices of the atoms of the first and of the second electrode.

    Raises
    ------
    InputError
        If these are not two disjoint lists of atoms.
    """
    lists = plain_electrodes(electrodes)
    if lists is None:
        return None
    labels, _, _ = group_labels(count, list(lists), "electrodes", "lists of the indices of atoms")
    return np.array([1, -1, 0])[labels]


def check_voltage(value: Any, electrodes: Any) -> float:
    """Validate a voltage between electrodes, V.

    Raises
    ------
    InputError
        If the voltage is not a number or too large, or there are no electrodes.
    """
    if not is_number(value) or abs(value) > HIGHEST_VOLTAGE:
        expected = f"a number of at most {HIGHEST_VOLTAGE:g} V in size"
        raise InputError(describe("electrode_voltage", value, expected))
    if value and electrodes is None:
        raise InputError(describe("electrode_voltage", value, "0 without electrodes"))
    return float(value)


def told_groups(atoms: Any) -> tuple[Any, Any]:
    """Charge groups and their charges specified by an ``ase.Atoms``; ``None`` if unspecified."""
    info, arrays = getattr(atoms, "info", {}), getattr(atoms, "arrays", {})
    return arrays.get(COLUMN), flat(info.get(ENTRY))


def flat(charges: Any) -> Any:
    """Flat array of charges; ASE reads nine values as a 3 × 3 matrix."""
    return charges if charges is None else np.ravel(np.asarray(charges), order="F")


def _told_electrodes(column: Any) -> tuple[tuple[int, ...], ...] | None:
    """Atoms of two electrodes from a column with 1 or 2 for their atoms and 0 for others."""
    if column is None or not np.any(column):
        return None
    strange = set(np.unique(column).tolist()) - {0, 1, 2}
    if strange:
        raise InputError(describe(f"column {ELECTRODE!r}", strange.pop(), "1, 2, and 0 elsewhere"))
    return tuple(tuple(np.flatnonzero(column == k).tolist()) for k in (1, 2))
