"""Statistics of a data set from which a model is initialised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..data.structure import Structure
from ..errors import InputError, describe
from ..neighbors import search_pairs


def elements_of(structures: Sequence[Structure]) -> tuple[str, ...]:
    """Symbols of the elements that occur, in order of atomic number."""
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
    """Energy per atom of each element from a least-squares fit to the compositions.

    If the compositions do not determine all energies, as for two elements in a fixed ratio, the
    solution closest to the mean energy per atom (minimum norm) is used. The fit uses float64,
    because all-electron energies are 10⁷ times larger than the relevant differences.

    Parameters
    ----------
    structures : sequence of Structure
        Structures are weighted by their weights; those without an energy are ignored.
    type_names : sequence of str
        T elements.
    given : mapping of str to float, optional
        Known energies, eV; only the others are fitted.

    Returns
    -------
    array, float64, shape (T,), eV
        Zeros if no structure has an energy.
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
    # Compositions occur many times: fit their mean energies, weighted by the number of structures.
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
    """Scale of the atomic energies in eV: the number of the rms force component in eV/Å.

    Parameters
    ----------
    structures : sequence of Structure
    type_names : sequence of str
        T elements.
    per_species : bool
        Use the rms of each element instead of all atoms.

    Returns
    -------
    array, float64, shape (T,), eV
        1 if there are no forces, or all are zero.
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


#: Largest numbers of structures for the mean number of neighbours and for shortest distances.
_SAMPLED, _MEASURED = 100, 400


def mean_num_neighbors(structures: Sequence[Structure], r_max: float) -> float:
    """Mean number of neighbours of an atom within `r_max` (Å), in evenly spaced structures."""
    structures = structures[:: -(-len(structures) // _SAMPLED)]
    edges = sum(2 * len(_pairs(structure, r_max)[0]) for structure in structures)
    atoms = sum(structure.num_atoms for structure in structures)
    return max(edges / atoms, 1e-3)


def shortest_distances(
    structures: Sequence[Structure], type_names: Sequence[str], cutoff: float
) -> np.ndarray:
    """Shortest distance of each pair of elements in the structures.

    Parameters
    ----------
    structures : sequence of Structure
        Of more than 400 structures, 400 evenly spaced ones are used.
    type_names : sequence of str
        T elements; other elements are ignored.
    cutoff : float, Å
        Value for pairs of elements without shorter distances.

    Returns
    -------
    array, float64, shape (T, T), Å
        Symmetric matrix.
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
    """Atoms, shape (P, 2), and distances, shape (P,), Å, of the P pairs within a cutoff."""
    box, periodic = structure.cell, structure.cell is not None
    cell = np.zeros((3, 3)) if box is None else box
    pairs, _, distances, _ = search_pairs(structure.positions, cell, periodic, cutoff, full=False)
    return pairs, distances


def spread_over_compositions(
    structures: Sequence[Structure], most: int, usable: Callable[[Structure], bool]
) -> list[int]:
    """Sorted indices of a subset of structures, with equal numbers of each composition.

    Parameters
    ----------
    structures : sequence of Structure
    most : int
        Largest size of the subset; slightly exceeded if elements would be missing.
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
    """Range of the reference charges, e, widened at both ends by `margin` times its width.

    (-1, 1) if there are no reference charges.
    """
    ranges = [(s.charges.min(), s.charges.max()) for s in structures if s.charges is not None]
    if not ranges:
        return -1.0, 1.0
    lowest, highest = float(min(ranges)[0]), float(max(high for _, high in ranges))
    margin *= max(highest - lowest, 0.1)
    return lowest - margin, highest + margin
