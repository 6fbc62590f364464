"""Periodic boxes in OpenMM's convention: lower triangular and reduced."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ..lattice import check_cell, reduced

# Relative margin of off-diagonal elements to OpenMM's bounds, which allow no rounding.
_MARGIN = 1e-12


@dataclass(frozen=True)
class ReducedBox:
    """A lattice in OpenMM's frame.

    Parameters
    ----------
    vectors : numpy.ndarray, shape (3, 3), Å
        Rows are box vectors; lower triangular, positive diagonal, reduced.
    rotation : numpy.ndarray, shape (3, 3)
        Proper rotation Q: positions in OpenMM's frame are ``positions @ Q.T``; ``forces @ Q``
        rotates forces back to the original frame.
    """

    vectors: np.ndarray
    rotation: np.ndarray

    @property
    def smallest_width(self) -> float:
        """Smallest diagonal element, Å; OpenMM's cutoffs must not exceed half of it."""
        return float(np.diag(self.vectors).min())


def reduce_box(cell: np.ndarray) -> ReducedBox:
    """Rotate and reduce a cell to the form that OpenMM requires, without changing the lattice.

    The order of the vectors is kept. The third vector of a left-handed cell is reversed.

    Parameters
    ----------
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors, of any shape and orientation.

    Raises
    ------
    BoxError
        If the cell is not three linearly independent vectors.
    """
    cell = check_cell(cell).copy()
    if np.linalg.det(cell) < 0.0:
        cell[2] *= -1.0
    if _is_reduced(cell):
        return ReducedBox(cell, np.eye(3))
    first = cell[0] / np.linalg.norm(cell[0])
    third = np.cross(cell[0], cell[1])
    third /= np.linalg.norm(third)
    rotation = np.stack((first, np.cross(third, first), third))
    box = np.tril(cell @ rotation.T)
    box[2] -= box[1] * np.round(box[2, 1] / box[1, 1])
    box[2] -= box[0] * np.round(box[2, 0] / box[0, 0])
    box[1] -= box[0] * np.round(box[1, 0] / box[0, 0])
    for row, column in ((1, 0), (2, 0), (2, 1)):
        bound = 0.5 * box[column, column] * (1.0 - _MARGIN)
        box[row, column] = np.clip(box[row, column], -bound, bound)
    return ReducedBox(box, rotation)


def compact_box(cell: np.ndarray) -> ReducedBox:
    """Like :func:`reduce_box`, with the lattice basis that allows the longest cutoff.

    A strongly skewed cell has an equivalent basis of shorter vectors. A cell within one per cent of
    the best width is kept, unless its vectors are much longer than those of the best basis.
    """
    best = reduce_box(cell)
    shortest = reduced(np.asarray(cell, dtype=np.float64), 0.0)
    for order in permutations(range(3)):
        candidate = reduce_box(shortest[list(order)])
        wider = candidate.smallest_width / best.smallest_width
        shorter = float(np.prod(_lengths(best) / _lengths(candidate)))
        if wider > 1.01 or (wider > 0.99 and shorter > 1.2):
            best = candidate
    return best


def _lengths(box: ReducedBox) -> np.ndarray:
    return np.linalg.norm(box.vectors, axis=1)


def _is_reduced(cell: np.ndarray) -> bool:
    if cell[0, 1] != 0.0 or cell[0, 2] != 0.0 or cell[1, 2] != 0.0 or (np.diag(cell) <= 0).any():
        return False
    return bool(
        2.0 * abs(cell[1, 0]) <= cell[0, 0]
        and 2.0 * abs(cell[2, 0]) <= cell[0, 0]
        and 2.0 * abs(cell[2, 1]) <= cell[1, 1]
    )
