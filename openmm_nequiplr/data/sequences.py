"""Lazy sequences of structures, which need not fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import overload

import numpy as np

from .structure import Structure


class LazySequence(Sequence[Structure]):
    """Sequence that creates its structures on access; a slice is a :class:`Selection`."""

    def _at(self, place: int) -> Structure:
        """Structure at a non-negative index."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Structure: ...
    @overload
    def __getitem__(self, index: slice) -> Selection: ...
    def __getitem__(self, index: int | slice) -> Structure | Selection:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else Selection(self, places)


class Selection(LazySequence):
    """Lazy selection of structures from another sequence.

    Parameters
    ----------
    source : sequence of Structure
    indices : sequence of int
    change : callable, optional
        Applied to each structure.
    """

    def __init__(
        self,
        source: Sequence[Structure],
        indices: Sequence[int] | None = None,
        change: Callable[[Structure], Structure] | None = None,
    ) -> None:
        self._source, self._change = source, change
        self._indices = np.arange(len(source)) if indices is None else np.array(indices, int)

    def __len__(self) -> int:
        return len(self._indices)

    def _at(self, place: int) -> Structure:
        structure = self._source[int(self._indices[place])]
        return structure if self._change is None else self._change(structure)


class Chain(LazySequence):
    """Lazy concatenation of sequences.

    Parameters
    ----------
    parts : sequence of sequences of Structure
    """

    def __init__(self, parts: Iterable[Sequence[Structure]]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._starts = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, place: int) -> Structure:
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part][place - int(self._starts[part])]


def selected(
    structures: Sequence[Structure], change: Callable[[Structure], Structure]
) -> Sequence[Structure]:
    """Apply a function to all structures: at once to a list, otherwise on access."""
    if isinstance(structures, list):
        return [change(each) for each in structures]
    return Selection(structures, change=change)


def chosen(structures: Sequence[Structure], indices: Sequence[int]) -> Sequence[Structure]:
    """Select structures: at once from a list, otherwise lazily."""
    if isinstance(structures, list):
        return [structures[index] for index in indices]
    return Selection(structures, indices)


def chained(parts: Sequence[Sequence[Structure]]) -> Sequence[Structure]:
    """Concatenate sequences: at once if all are lists, otherwise lazily."""
    if all(isinstance(part, list) for part in parts):
        return list(itertools.chain(*parts))
    return Chain(parts)
