"""Plausibility check of the unit of length: shortest distances compared with covalent radii."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..neighbors import pairs_within
from .structure import Structure
from .units import LENGTHS, DataUnits

#: Largest number of structures that are checked, spread evenly over a file.
_SAMPLE = 200
#: Smallest plausible median of the closest contacts, relative to the covalent radii. Bohr and Å
#: differ by a factor of 0.53; gas-phase metal oxides have bonds of 0.67.
_SHORTEST = {"bohr": 0.65}
_SHORTEST_ELSE = 0.6
#: Longest bond, relative to the covalent radii.
_LONGEST = 1.35
#: Range of the relative lengths of bonds, for suggestions.
_BONDS = (0.65, 1.3)
#: Search distance of contacts in covalent diameters.
_FARTHEST = 3.0
#: Relative distance below which atoms are reported as overlapping.
_OVERLAP = 0.35
_NOBLE = frozenset({"He", "Ne", "Ar", "Kr", "Xe", "Rn"})


@dataclass(frozen=True)
class Contact:
    """The closest contact of a structure, relative to the covalent radii.

    Parameters
    ----------
    ratio : float
        Distance divided by the sum of the covalent radii; infinite without a contact.
    distance : float, Å
    atoms : tuple of int
        Indices of the two atoms; empty without a contact.
    """

    ratio: float = float("inf")
    distance: float = float("inf")
    atoms: tuple[int, ...] = ()


def closest_contact(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None, longest: float = 1.0
) -> Contact:
    """Closest contact of two atoms (or images), relative to their covalent radii.

    Parameters
    ----------
    numbers : numpy.ndarray, int, shape (N,)
        Atomic numbers.
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
        None for a structure that is not periodic.
    longest : float
        Search distance in covalent diameters of the largest atom.

    Returns
    -------
    Contact
        Without atoms if no pair is within the search distance.
    """
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    diameter = 2.0 * float(radii.max())
    cutoff, last = diameter, longest * diameter
    if cell is not None:  # start with few neighbours, even in a small cell
        volume = abs(float(np.linalg.det(cell)))
        cutoff = min(cutoff, 1.2 * (volume / len(positions)) ** (1.0 / 3.0))
    while True:
        first, second, lengths = _pairs(positions, cell, cutoff)
        if len(first):
            ratios = lengths / (radii[first] + radii[second])
            best = int(ratios.argmin())
            ratio = float(ratios[best])
            if ratio * diameter <= cutoff:  # pairs beyond the cutoff have larger ratios
                pair = (int(first[best]), int(second[best]))
                return Contact(ratio, float(lengths[best]), pair)
            cutoff = ratio * diameter * (1.0 + 1e-9)
        elif cutoff >= last:
            return Contact()
        else:
            cutoff = min(2.0 * cutoff, last)


def _pairs(
    positions: np.ndarray, cell: np.ndarray | None, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second atom and distance (Å) of all pairs within a cutoff."""
    if cell is None:
        from scipy.spatial import cKDTree  # slow to import

        first, second = cKDTree(positions).query_pairs(cutoff, output_type="ndarray").T
        return first, second, np.linalg.norm(positions[second] - positions[first], axis=1)
    first, second, vectors = pairs_within(positions, cell, cutoff)
    return first, second, np.linalg.norm(vectors, axis=1)


def check_distances(
    structures: Sequence[Structure], units: DataUnits, stated: bool, say: Callable[[str], None]
) -> None:
    """Compare the shortest distances with the lengths of bonds.

    Parameters
    ----------
    structures : sequence of Structure
        All structures of a file, in Å.
    units : DataUnits
        Units from which they were converted.
    stated : bool
        Whether the user stated the unit of length. Implausible distances are then reported through
        ``say`` and raise no error.
    say : callable
        Called with each note.

    Raises
    ------
    InputError
        If half of the structures have atoms much closer than a bond, or if nearly all structures
        lack bonds but would have some in Bohr.
    """
    from ase.data import atomic_numbers

    step = max(1, -(-len(structures) // _SAMPLE))
    found: list[tuple[int, Contact]] = []
    for index in range(0, len(structures), step):
        each = structures[index]
        numbers = np.array([atomic_numbers.get(symbol, 0) for symbol in each.symbols])
        if numbers.min() > 0 and (each.num_atoms > 1 or each.pbc):
            contact = closest_contact(numbers, each.positions, each.cell, _FARTHEST)
            if contact.atoms:
                found.append((index, contact))
    if not found:
        return
    found.sort(key=lambda each: each[1].ratio)
    middle, low = found[(len(found) - 1) // 2], found[len(found) // 20]
    assert units.length is not None
    complaint = None
    if middle[1].ratio < _SHORTEST.get(units.length, _SHORTEST_ELSE):
        complaint = _complaint(structures, middle, units, "closer than a bond")
    elif low[1].ratio > _LONGEST and units.length == "angstrom":
        elements = {s for structure in structures for s in structure.symbols}
        if _BONDS[0] <= low[1].ratio * LENGTHS["bohr"] <= _BONDS[1] and not elements <= _NOBLE:
            complaint = _complaint(structures, low, units, "farther apart than bonds")
    if complaint is not None:
        if not stated:
            raise InputError(complaint)
        say(complaint)
        return
    near = [each for each in found if each[1].ratio < _OVERLAP]
    if near:
        pair = _pair(structures, *near[0])
        say(f"atoms closer than {_OVERLAP:g} of a bond in {len(near)} structures ({pair})")


def _complaint(
    structures: Sequence[Structure], where: tuple[int, Contact], units: DataUnits, what: str
) -> str:
    ratio = where[1].ratio
    others = {
        name: ratio * factor / LENGTHS[str(units.length)]
        for name, factor in LENGTHS.items()
        if name != units.length
    }
    likely = [n for n, r in others.items() if _BONDS[0] <= r <= _BONDS[1]]
    hint = ""
    if likely:
        best = min(likely, key=lambda name: abs(np.log(others[name])))
        apart = where[1].distance * others[best] / ratio
        hint = f" (in {best} it would be {apart:.3g} Å)"
    return (
        f"lengths read as {units.length} and energies as {units.energy}: expected bonds, got atoms "
        f"{what}, {_pair(structures, *where)}{hint}; state the units, even if these are right: "
        "data.units: {length: …, energy: …}, --length-unit and --energy-unit, or "
        "units=DataUnits(length, energy)"
    )


def _pair(structures: Sequence[Structure], index: int, contact: Contact) -> str:
    first, second = contact.atoms
    symbols = structures[index].symbols
    return (
        f"structure {index}: atoms {first} and {second}, {symbols[first]} and {symbols[second]}, "
        f"{contact.distance:.3g} Å"
    )
