"""Charge groups, groups of atoms with constrained charges: input, checks, bonded molecules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from ase.formula import Formula

from .errors import InputError, describe
from .neighbors import pairs_within

#: Charge groups: the group of each atom, or lists of atoms.
Groups: TypeAlias = "Sequence[int] | Sequence[Sequence[int]] | np.ndarray | None"
#: Value of ``charge_groups`` that stands for bonded molecules.
MOLECULES = "molecules"
# Tolerance of equal charges, e.
_SAME = 1e-6
# Longest bond, in units of the sum of the covalent radii.
_BOND = 1.25
_EXPECTED = "a label for each of {} atoms, or lists of the indices of atoms"


class Fragments(NamedTuple):
    """Charge groups that cover all atoms.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (N,)
        Group of each atom, from 0 to F − 1.
    charges : numpy.ndarray, float64, shape (F,), e
    """

    groups: np.ndarray
    charges: np.ndarray


def read_groups(
    count: int, groups: Groups, charges: Any = None, total_charge: float | None = None
) -> Fragments | None:
    """Validate the charge groups of ``count`` atoms.

    Parameters
    ----------
    count : int
        Number N of atoms.
    groups : sequence of N int, or sequence of sequences of int, optional
        A label for each atom, or lists of the indices of atoms. Atoms in no list form one more
        group.
    charges : sequence of F float, optional, e
        Charges in the order of the labels or lists. The charge of the atoms in no list may be
        omitted: it is the remainder of the total charge. By default all are 0, except that a single
        group has the total charge.
    total_charge : float, optional, e
        By default the sum of the charges.

    Returns
    -------
    Fragments or None
        ``None`` without groups.

    Raises
    ------
    InputError
        If the groups are invalid, or the charges do not sum to the total charge.
    """
    if groups is None:
        if charges is None:
            return None
        raise InputError(describe("group_charges", charges, "None without charge_groups"))
    if isinstance(groups, str | bytes) or not isinstance(groups, Iterable):
        raise InputError(describe("charge_groups", groups, _EXPECTED.format(count)))
    groups = list(groups)
    labels, found, told = group_labels(count, groups)
    values = np.zeros(found) if charges is None else _numbers(charges)
    rest = 0.0 if total_charge is None else total_charge - float(values.sum())
    if charges is None and found == 1:
        values[0] = rest
    elif told == len(values) < found:
        values = np.append(values, rest)
    if len(values) != found:
        got = f"{len(values)} charges"
        raise InputError(describe("group_charges", got, f"one for each of {found} groups"))
    if total_charge is not None and abs(float(values.sum()) - total_charge) > _SAME:
        got = "None, which is 0 for each" if charges is None else f"{float(values.sum()):+g} e"
        expected = f"charges of {found} groups that sum to the total charge {total_charge:+g} e"
        raise InputError(describe("group_charges", got, expected))
    return Fragments(labels, values)


def group_labels(
    count: int, groups: list[Any], name: str = "charge_groups", expected: str = _EXPECTED
) -> tuple[np.ndarray, int, int]:
    """Group of each atom, from 0 on, the number of groups, and the number of given groups.

    ``groups`` are labels or lists of atoms; ``name`` and ``expected`` are for messages.
    """
    expected = expected.format(count)
    if not any(np.ndim(each) for each in groups):
        labels = _whole(groups, name, expected)
        if labels.shape != (count,):
            raise InputError(describe(name, f"{len(labels)} labels", expected))
        names, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64).reshape(count), len(names), len(names)
    lists = [_whole(each, name, expected) for each in groups]
    labels = np.full(count, len(lists), dtype=np.int64)
    for number, atoms in enumerate(lists):
        if not len(atoms) or atoms.min() < 0 or atoms.max() >= count:
            got, inside = f"group {number}: {atoms.tolist()}", f"indices from 0 to {count - 1}"
            raise InputError(describe(name, got, inside))
        labels[atoms] = number
    every = np.concatenate(lists)
    if len(np.unique(every)) < len(every):
        twice = int(np.argmax(np.bincount(every) > 1))
        got = f"atom {twice} more than once"
        raise InputError(describe(name, got, "each atom in one group"))
    return labels, int(labels.max()) + 1, len(lists)


def _whole(values: Any, name: str, expected: str) -> np.ndarray:
    """Convert to an int64 array."""
    try:
        array = np.asarray(list(values))
        numbers = array.astype(np.int64)
        good = np.array_equal(numbers, array) and array.ndim == 1 and array.dtype != bool
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise InputError(describe(name, values, expected))
    return numbers


def _numbers(charges: Any) -> np.ndarray:
    try:
        values = np.atleast_1d(np.array(charges, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(describe("group_charges", charges, "finite numbers (e)"))
    return values


def joined_by_bonds(
    count: int, first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Index of the molecule of each of ``count`` atoms, int64, (N,), from a list of bonds."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(first), dtype=np.int8)
    bonds = coo_array((ones, (np.asarray(first, int), np.asarray(second, int))), (count, count))
    return np.asarray(connected_components(bonds, directed=False)[1], dtype=np.int64)


def nearby_bonds(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    sides: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """First and second atoms of the bonds of a structure without a list of bonds, shortest first.

    Atoms closer than 1.25 times the sum of their covalent radii are bonded. Atoms of electrodes
    have no bonds.

    Parameters
    ----------
    numbers : numpy.ndarray, int64, shape (N,)
        Atomic numbers.
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
    sides : numpy.ndarray, shape (N,), optional
        Result of :func:`read_electrodes`.
    """
    from ase.data import covalent_radii

    radii = _BOND * covalent_radii[numbers]
    first, second, vectors = pairs_within(positions, cell, 2.0 * float(radii.max()))
    lengths = np.linalg.norm(vectors, axis=1)
    bonded = lengths < radii[first] + radii[second]
    if sides is not None:
        bonded &= (sides[first] == 0) & (sides[second] == 0)
    places = np.flatnonzero(bonded)
    places = places[np.argsort(lengths[places], kind="stable")]
    return first[places], second[places]


def nearby_molecules(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    sides: np.ndarray | None = None,
) -> np.ndarray:
    """Index of the molecule of each atom from :func:`nearby_bonds`, int64, shape (N,)."""
    return joined_by_bonds(len(numbers), *nearby_bonds(numbers, positions, cell, sides))


def by_formula(
    symbols: Sequence[str],
    groups: Groups,
    charges: Mapping[str, Any],
    sides: np.ndarray | None = None,
) -> list[Any]:
    """Charges of groups, e, from charges given by formula; those of other groups are 0.

    Parameters
    ----------
    symbols : sequence of str, length N
    groups
        As for :func:`read_groups`.
    charges : mapping of str to float, e
        Charges by formula, such as ``"Na"`` or ``"H3O"``, with elements in any order.
    sides : numpy.ndarray, shape (N,), optional
        Result of :func:`read_electrodes`; groups with atoms of electrodes match no formula.

    Raises
    ------
    InputError
        If a formula is invalid, or no group has it.
    """
    found = read_groups(len(symbols), groups)
    if found is None:
        raise InputError(describe("group_charges", charges, "None without charge_groups"))
    members: list[list[str]] = [[] for _ in found.charges]
    for symbol, group in zip(symbols, found.groups, strict=True):
        members[group].append(symbol)
    for group in () if sides is None else set(found.groups[sides != 0].tolist()):
        members[group] = []
    formulas = [tuple(sorted(each)) for each in members]
    value_of = {}
    for name, value in charges.items():
        try:
            key = tuple(sorted(Formula(name, strict=True)))
        except ValueError:
            key = ()
        if not key or key not in formulas:
            names = {Formula.from_list(list(each)).format("hill") for each in formulas if each}
            known = sorted(names)
            expected = f"formulas of groups, which are {', '.join(known[:8])}"
            raise InputError(describe("group_charges", name, expected))
        value_of[key] = value
    return [value_of.get(formula, 0.0) for formula in formulas]
