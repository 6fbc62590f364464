"""Alternate locations of atoms in files of crystal structures: selection of one set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import notify

# Distance (Å) below which atoms share a position; all bonds are longer.
_SHARED = 0.6


class Location(NamedTuple):
    """Location of an atom: residue, names, label ``mark`` of its set, occupancy, position (Å)."""

    residue: Hashable
    residue_name: str
    name: str
    mark: str
    occupancy: float
    position: Sequence[float]


def say_locations(path: Path, dropped: int) -> None:
    """Report that a file has alternate locations, if some of them are dropped."""
    if dropped:
        notify(
            f"structure: {path} has alternate locations: the most complete ones of the highest "
            f"occupancy are used, {dropped} others are left out"
        )


def single_locations(sites: Sequence[Location]) -> list[bool]:
    """Whether to keep each location, so that every residue has one conformation.

    Sets of locations of a residue exclude one another if they differ in the residue name or have
    an atom name or a position in common. Of such sets, the most complete one is kept, and among
    equally complete ones the one with the highest mean occupancy.

    Parameters
    ----------
    sites : sequence of Location
        The label ``mark`` is ``""`` for an atom without alternate locations.

    Returns
    -------
    list of bool
        True for locations to keep.
    """
    repeated = {(s.residue, s.residue_name, s.name) for s in sites if s.mark}
    residues: dict[Hashable, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, site in enumerate(sites):
        if site.mark or (site.residue, site.residue_name, site.name) in repeated:
            residues[site.residue][site.mark].append(index)
    kept = [True] * len(sites)
    for places in residues.values():
        sets = {mark: [sites[k] for k in indices] for mark, indices in places.items()}
        taken = _compatible(sets)
        for mark, indices in places.items():
            for index in indices:
                kept[index] = mark in taken
    return kept


def _compatible(sets: dict[str, list[Location]]) -> list[str]:
    names = {mark: {(s.residue_name, s.name) for s in sites} for mark, sites in sets.items()}
    ranks = {
        mark: (
            any(names[mark] < other for other in names.values()),
            -float(np.mean([s.occupancy for s in sites])),
        )
        for mark, sites in sets.items()
    }
    taken: list[str] = []
    for mark in sorted(sets, key=ranks.__getitem__):
        if all(_apart(sets[mark], sets[other]) for other in taken):
            taken.append(mark)
    return taken


def _apart(first: list[Location], second: list[Location]) -> bool:
    """Whether two sets of locations of a residue are compatible."""
    if {s.residue_name for s in first} != {s.residue_name for s in second}:
        return False
    if {s.name for s in first} & {s.name for s in second}:
        return False
    a, b = (np.array([s.position for s in sites]) for sites in (first, second))
    return bool(np.linalg.norm(a[:, None] - b, axis=-1).min() > _SHARED)
