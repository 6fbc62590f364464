"""Statistics of a data set that initialise a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..data.structure import Structure
from ..errors import InputError, describe
from ..neighbors import search_pairs


def elements_of(structures: Sequence[Structure]) -> tuple[str, ...]:
    """Element symbols that occur, in order of atomic number."""
    from ase.data import atomic_numbers

    symbols = {symbol for structure in structures for symbol in structure.symbols}
    unknown = sorted(s for s in symbols if atomic_numbers.get(s, 0) < 1)
    if unknown:
        raise InputError(describe("symbols", unknown, "element symbols"))
    return tuple(sorted(symbols, key=lambda s: atomic_numbers[s]))


def fit_energy_shifts(
    structures: Sequence[Structure],
    type_names: Sequence[str],
    given: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Energy per atom of each element, by least squares over composition.

    Where compositions do not determine all of them (two elements in a fixed proportion), the
    solution of least norm, counted from the mean energy per atom, is taken. Everything is
    float64: all-electron energies are 10⁷ times larger than the differences that matter.

    Parameters
    ----------
    structures : sequence of Structure
        Those without an energy or weight are passed over, others count by their weight.
    type_names : sequence of str
        Elements (T).
    given : mapping of str to float, optional
        Energies known beforehand, eV; only the others are fitted.

    Returns
    -------
    array, float64, shape [T]
        eV; zeros if no structure has an energy.
    """
    given = dict(given or {})
    unknown = sorted(set(given) - set(type_names))
    if unknown:
        raise InputError(
            describe("data.energy_shifts", unknown, "elements among " + ", ".join(type_names))
        )
    shifts = np.array([given.get(name, 0.0) for name in type_names], dtype=np.float64)
    free = np.array([name not in given for name in type_names])
    labelled = [
        (s.weight, s.energy, *map(s.symbols.count, type_names))
        for s in structures
        if s.energy is not None and s.weight > 0
    ]
    if not labelled or not free.any():
        return shifts
    own, energies, counts = np.split(np.array(labelled, dtype=np.float64), [1, 2], axis=1)
    own, energies = own[:, 0], energies[:, 0] - counts @ shifts
    counts = counts[:, free]
    # The same composition occurs many times: fit the means, weighted by their number.
    rows, inverse = np.unique(counts, axis=0, return_inverse=True)
    numbers = np.bincount(inverse.ravel(), weights=own)
    means = np.bincount(inverse.ravel(), weights=own * energies) / numbers
    atoms = float(own @ counts.sum(axis=1))
    per_atom = float(own @ energies) / atoms if atoms > 0 else 0.0
    weights = np.sqrt(numbers)[:, None]
    target = (means - rows.sum(axis=1) * per_atom) * weights[:, 0]
    solution = np.linalg.lstsq(rows * weights, target, rcond=1e-10)[0]
    shifts[free] = solution + per_atom
    return shifts


def fit_energy_scales(
    structures: Sequence[Structure], type_names: Sequence[str], per_species: bool = False
) -> np.ndarray:
    """Scale of atomic energies: the rms force component in eV/Å, taken as eV.

    Parameters
    ----------
    structures : sequence of Structure
    type_names : sequence of str
        Elements (T).
    per_species : bool
        Separately for each element instead of over all atoms.

    Returns
    -------
    array, float64, shape [T]
        1 where there are no forces, or only zeros.
    """
    squares = np.zeros(len(type_names))
    numbers = np.zeros(len(type_names))
    index = {name: i for i, name in enumerate(type_names)}
    for structure in structures:
        if structure.forces is not None:
            types = np.array([index[s] for s in structure.symbols])
            np.add.at(squares, types, (structure.forces**2).mean(axis=1))
            np.add.at(numbers, types, 1.0)
    if not per_species:
        squares, numbers = (
            np.full_like(squares, squares.sum()),
            np.full_like(numbers, numbers.sum()),
        )
    scales = np.sqrt(squares / np.maximum(numbers, 1.0))
    return np.where(scales > 0, scales, 1.0)


#: The mean number of neighbours, and shortest distances, are taken from so many structures at most.
_SAMPLED, _MEASURED = 100, 400


def mean_num_neighbors(structures: Sequence[Structure], r_max: float) -> float:
    """Mean number of neighbours of an atom within `r_max` (Å), in evenly chosen structures."""
    structures = structures[:: -(-len(structures) // _SAMPLED)]
    edges = sum(2 * len(_pairs(structure, r_max)[0]) for structure in structures)
    atoms = sum(structure.num_atoms for structure in structures)
    return max(edges / atoms, 1e-3)


def shortest_distances(
    structures: Sequence[Structure], type_names: Sequence[str], cutoff: float
) -> np.ndarray:
    """Shortest distance of each two elements in the structures.

    Parameters
    ----------
    structures : sequence of Structure
        Of more than 400 that many, evenly chosen.
    type_names : sequence of str
        Elements (T); others are passed over.
    cutoff : float, Å
        Stands where two elements do not come nearer.

    Returns
    -------
    array, float64, shape [T, T]
        Å, symmetric.
    """
    index = {name: i for i, name in enumerate(type_names)}
    count = len(type_names)
    shortest = np.full((count + 1, count + 1), float(cutoff))
    for structure in structures[:: max(-(-len(structures) // _MEASURED), 1)]:
        pairs, distances = _pairs(structure, cutoff)
        types = np.array([index.get(symbol, count) for symbol in structure.symbols])
        np.minimum.at(shortest, tuple(types[pairs].T), distances)
    return np.minimum(shortest, shortest.T)[:count, :count]


def _pairs(structure: Structure, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Atoms, shape (P, 2), and distances, Å, of all pairs of a structure, in any order."""
    box, periodic = structure.cell, structure.cell is not None
    cell = np.zeros((3, 3)) if box is None else box
    pairs, _, distances, _ = search_pairs(structure.positions, cell, periodic, cutoff, full=False)
    return pairs, distances


def spread_over_compositions(
    structures: Sequence[Structure], most: int, usable: Callable[[Structure], bool]
) -> list[int]:
    """Places of some of the structures, of each composition as many, in their order.

    Parameters
    ----------
    structures : sequence of Structure
    most : int
        How many; a few more where elements would be missing.
    usable : callable
        Whether a structure may be chosen.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for index, structure in enumerate(structures):
        if usable(structure):
            places.setdefault(tuple(sorted(structure.symbols)), []).append(index)
    share = max(1, most // max(len(places), 1))
    if sum(map(len, places.values())) <= most:
        share = most
    kept = [i for own in places.values() for i in own[:: -(-len(own) // share)]]
    kept = kept[:: -(-len(kept) // most)] if kept else []
    seen = {symbol for index in kept for symbol in structures[index].symbols}
    for composition, own in places.items():
        if not seen.issuperset(composition):
            seen.update(composition)
            kept.append(own[0])
    return sorted(kept)


def charge_range(structures: Sequence[Structure], margin: float = 0.1) -> tuple[float, float]:
    """Smallest and largest reference charge in e, widened by `margin` of their distance.

    (-1, 1) if there are no reference charges.
    """
    ranges = [(s.charges.min(), s.charges.max()) for s in structures if s.charges is not None]
    if not ranges:
        return -1.0, 1.0
    lowest, highest = float(min(ranges)[0]), float(max(high for _, high in ranges))
    margin *= max(highest - lowest, 0.1)
    return lowest - margin, highest + margin
