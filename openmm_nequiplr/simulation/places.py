"""Where a model was evaluated, and what observables of its charges were there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..lattice import displacements
from ..model.observables import Observable, Observation
from .computation_settings import Conditions

# Positions this close (Å, modulo lattice vectors) are the same frame.
_SAME_POSITION = 1e-5


@dataclass(frozen=True)
class Place:
    """What an evaluation depends on.

    Parameters
    ----------
    positions : numpy.ndarray, float64, shape (N, 3), Å
    cell : numpy.ndarray or None, float64, shape (3, 3), Å
    conditions : Conditions
    """

    positions: np.ndarray
    cell: np.ndarray | None
    conditions: Conditions

    def same(self, other: Place) -> bool:
        """Whether everything is the same."""
        return self._like(other) and np.array_equal(self.positions, other.positions)

    def same_frame(self, other: Place) -> bool:
        """Whether everything is the same, but for images of atoms and rounding."""
        if not self._like(other):
            return False
        moved = self.positions - other.positions
        if self.cell is not None:
            moved = displacements(self.positions, other.positions, self.cell)[0]
        return bool((np.abs(moved) < _SAME_POSITION).all())

    def copied(self) -> Place:
        """The same with its own float64 arrays."""
        cell = None if self.cell is None else np.array(self.cell, dtype=np.float64)
        return Place(np.array(self.positions, dtype=np.float64), cell, self.conditions)

    def _like(self, other: Place) -> bool:
        if self.conditions != other.conditions:
            return False
        if self.cell is None or other.cell is None:
            return self.cell is other.cell
        return np.array_equal(self.cell, other.cell)


class Watched:
    """Observables that collective variables ask for, and their values at the last few places.

    What has not been asked for at several places in a row is no longer watched.

    Parameters
    ----------
    remembered : int
        Number of places.
    """

    def __init__(self, remembered: int) -> None:
        self._asked: dict[Observable, int] = {}
        self._recent: deque[tuple[Place, dict[Observable, Observation]]] = deque(maxlen=remembered)
        self._remembered, self._count = remembered, 0

    def ask(self, observable: Observable) -> None:
        """Watch an observable from now on."""
        self._asked[observable] = self._count

    def current(self) -> tuple[Observable, ...]:
        """What is watched."""
        oldest = self._count - self._remembered
        self._asked = {each: last for each, last in self._asked.items() if last >= oldest}
        return tuple(self._asked)

    def keep(self, place: Place, values: dict[Observable, Observation]) -> None:
        """Remember values at a place whose arrays do not change."""
        self._count += 1
        if values:
            self._recent.append((place, values))

    def find(self, place: Place, observable: Observable) -> Observation | None:
        """The value there, if it is known."""
        for seen, values in reversed(self._recent):
            if observable in values and place.same_frame(seen):
                return values[observable]
        return None
