"""Checks of topologies: indices of atoms, elements, and the box."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from openmm import app, unit

from ..checks import is_whole
from ..errors import BoxError, InputError, UnknownElementError, describe
from ..lattice import check_cell
from .box import ReducedBox, reduce_box


def check_atoms(atoms: Iterable[int], count: int) -> tuple[int, ...]:
    """Indices of some of ``count`` atoms as a list of int, in the given order.

    Raises
    ------
    InputError
        If there are none, or one is not an integer, out of range or repeated.
    """
    if isinstance(atoms, str | bytes) or not isinstance(atoms, Iterable):
        raise InputError(describe("atoms", atoms, "a list of indices"))
    chosen = tuple(atoms)
    if not chosen:
        raise InputError(describe("atoms", "none", "the index of at least one atom"))
    for index in chosen:
        if not is_whole(index) or not 0 <= index < count:
            raise InputError(describe("atoms", index, f"indices from 0 to {count - 1}"))
    indices = tuple(int(index) for index in chosen)
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise InputError(describe("atoms", f"{twice} more than once", "each index once"))
    return indices


def topology_symbols(
    topology: app.Topology, known: Sequence[str], chosen: Sequence[int] | None = None
) -> tuple[str, ...]:
    """Element symbols of the atoms of a topology.

    Parameters
    ----------
    topology : openmm.app.Topology
    known : sequence of str
        Elements that the model supports.
    chosen : sequence of int, optional
        Indices of the atoms, in the order of the result; by default all.

    Raises
    ------
    InputError
        If there are no atoms, or atoms without element.
    UnknownElementError
        If the model does not support an element.
    """
    atoms = list(topology.atoms())
    if not atoms:
        raise InputError(describe("topology", "no atoms", "at least one atom"))
    if chosen is not None:
        atoms = [atoms[index] for index in chosen]
    nameless = [a for a in atoms if a.element is None]
    if nameless:
        shown = ", ".join(f"{a.name} (index {a.index})" for a in nameless[:5])
        raise InputError(
            f"topology: expected an element for every atom, got none for {len(nameless)} of "
            f"{len(atoms)} atoms: {shown}{', …' if len(nameless) > 5 else ''}"
        )
    elements = [app.Element.getByAtomicNumber(a.element.atomic_number) for a in atoms]
    symbols = tuple(element.symbol for element in elements)  # deuterium is hydrogen
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        counts = ", ".join(
            f"{s} ({symbols.count(s)} atoms, first index {atoms[symbols.index(s)].index})"
            for s in unknown
        )
        raise UnknownElementError(
            f"topology: expected elements that the model knows ({', '.join(known)}), got {counts}"
        )
    return symbols


def topology_box(topology: app.Topology) -> ReducedBox | None:
    """The box of a topology in OpenMM's reduced form, or ``None``."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        return None
    # a Quantity of vectors, or a list of Quantities as returned by a System
    cell = check_cell(np.array([vector.value_in_unit(unit.angstrom) for vector in vectors]))
    box = reduce_box(cell)
    if not np.allclose(box.rotation, np.eye(3), atol=1e-8):
        raise BoxError(
            f"topology: expected box vectors in OpenMM's orientation (first along x, second in the "
            f"xy plane, a right-handed set), got {cell.tolist()} Å; "
            "openmm_nequiplr.simulation.from_atoms rotates box and positions together"
        )
    return box
