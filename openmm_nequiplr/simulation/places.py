"""Cache keys of evaluations, and cached observables of the charges."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..lattice import displacements
from ..model.observables import Observable, Observation
from .computation_settings import Conditions

# Positions within this distance (Å, modulo lattice vectors) belong to the same frame.
_SAME_POSITION = 1e-5


@dataclass(frozen=True)
class Place:
    """Geometry and conditions on which an evaluation depends.

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
        """Whether positions, cell and conditions are identical."""
        here, there = self.positions, other.positions
        first = np.array_equal(here[:1], there[:1])  # nearly always enough
        return first and self.like(other) and np.array_equal(here, there)

    def same_frame(self, other: Place) -> bool:
        """Whether both are the same frame, up to lattice translations of atoms and rounding."""
        if not self.like(other):
            return False
        moved = self.positions - other.positions
        if self.cell is not None:
            moved = displacements(self.positions, other.positions, self.cell)[0]
        return bool((np.abs(moved) < _SAME_POSITION).all())

    def copied(self) -> Place:
        """A copy with its own float64 arrays."""
        cell = None if self.cell is None else np.array(self.cell, dtype=np.float64)
        return Place(np.array(self.positions, dtype=np.float64), cell, self.conditions)

    def like(self, other: Place) -> bool:
        """Whether cell and conditions are identical."""
        if self.conditions != other.conditions:
            return False
        if self.cell is None or other.cell is None:
            return self.cell is other.cell
        return np.array_equal(self.cell, other.cell)


class Watched:
    """Observables that collective variables request, and their values at the last few places.

    An observable that is not requested at several places in a row is no longer evaluated.

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
        """Request an observable in the following evaluations."""
        self._asked[observable] = self._count

    def current(self) -> tuple[Observable, ...]:
        """The requested observables."""
        oldest = self._count - self._remembered
        self._asked = {each: last for each, last in self._asked.items() if last >= oldest}
        return tuple(self._asked)

    def keep(self, place: Place, values: dict[Observable, Observation]) -> None:
        """Store values at a place, whose arrays must not change."""
        self._count += 1
        if values:
            self._recent.append((place, values))

    def find(self, place: Place, observable: Observable) -> Observation | None:
        """The stored value at a place, or ``None``."""
        for seen, values in reversed(self._recent):
            if observable in values and place.same_frame(seen):
                return values[observable]
        return None
