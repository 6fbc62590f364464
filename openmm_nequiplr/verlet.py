"""Neighbour lists that outlive a step: Verlet's list with a skin, exact at every geometry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .errors import InputError, describe
from .jit import FEWEST_ATOMS, compiled
from .neighbors import neighbor_list

#: Finds ``(edge_index, edge_shift)`` for ``(positions, cell, periodic, cutoff)``; see
#: :func:`openmm_nequiplr.neighbors.neighbor_list`.
NeighborSearch = Callable[[np.ndarray, np.ndarray, bool, float], tuple[torch.Tensor, torch.Tensor]]
#: Å
DEFAULT_SKIN = 1.0

_ROUNDING = 1e-9  # Å; how far the bound on displacements is kept from its limit


class VerletList:
    """Searches pairs within cutoff + skin, and keeps them while they must hold all within cutoff.

    Called like :func:`openmm_nequiplr.neighbors.neighbor_list`, it returns the same edges in the
    same order: those within the cutoff now. What was asked before changes how long it takes and
    nothing else.

    Between the geometry of the search and the present one lies a strain F that takes the old cell
    to the new one, a displacement d of each atom that is left over, modulo lattice vectors (atoms
    may be wrapped at any time), and a common translation. A pair that the search did not find was
    longer than R = cutoff + skin; now it is longer than s R − 2 max|d|, with the smallest singular
    value s of F. While that is not below the cutoff, no pair is missing. (Without strain: while
    no atom has moved by more than half the skin.)

    Parameters
    ----------
    skin : float, Å
        Zero searches anew for every geometry.
    full : bool
        Pairs in both directions, or once.

    Attributes
    ----------
    searches : int
        How many there were.

    Raises
    ------
    InputError
        If the skin is not a length.
    """

    def __init__(self, skin: float = DEFAULT_SKIN, full: bool = True) -> None:
        if not 0.0 <= skin < np.inf:
            raise InputError(describe("skin", skin, "a length (Å), zero or more"))
        self.skin = float(skin)
        self.full = full
        self.searches = 0
        self._held: _Held | None = None

    def __call__(
        self, positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs within the cutoff, as :func:`openmm_nequiplr.neighbors.neighbor_list` has them.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3), Å
        cell : numpy.ndarray, shape (3, 3), Å
        periodic : bool
        cutoff : float, Å
        """
        points = np.ascontiguousarray(positions, dtype=np.float64)
        box = np.ascontiguousarray(cell, dtype=np.float64) if periodic else np.zeros((3, 3))
        if self.skin == 0.0:
            self.searches += 1
            return neighbor_list(points, box, periodic, cutoff, self.full)
        images = None
        if self._held is not None:
            images = self._held.images_if_complete(points, box, periodic, cutoff)
        if self._held is None or images is None:
            self._held = _Held(points, box, periodic, cutoff + self.skin, self.full)
            self.searches += 1
            images = np.zeros_like(points)
        return self._held.within(points, box, images, cutoff)


class _Held:
    """The pairs of one search, and the geometry that they belong to."""

    def __init__(
        self, points: np.ndarray, box: np.ndarray, periodic: bool, reach: float, full: bool
    ) -> None:
        index, shift = neighbor_list(points, box, periodic, reach, full)
        self.index, self.shift = index.numpy(), shift.numpy()
        self.points, self.box = points.copy(), box.copy()
        self.periodic, self.reach = periodic, reach

    def images_if_complete(
        self, points: np.ndarray, box: np.ndarray, periodic: bool, cutoff: float
    ) -> np.ndarray | None:
        """Lattice vectors that each atom has jumped by since, if no pair can be missing.

        Returns
        -------
        numpy.ndarray or None, float64, shape (N, 3)
            Whole numbers; ``None`` if pairs may be missing.
        """
        if periodic != self.periodic or points.shape != self.points.shape:
            return None
        shrunk = 1.0
        expected = self.points
        if periodic and not np.array_equal(box, self.box):
            strain = np.linalg.solve(self.box, box)
            shrunk = float(np.linalg.svd(strain, compute_uv=False)[-1])
            expected = self.points @ strain
        allowed = 0.5 * (shrunk * self.reach - cutoff) - _ROUNDING
        if not allowed > 0.0:
            return None
        moved = points - expected
        images = np.zeros_like(points)
        if periodic:
            images = np.rint(moved @ np.linalg.inv(box))
            if images.any():
                moved -= images @ box
        moved -= moved.mean(axis=0)  # what all have in common does not change a pair
        farthest = np.einsum("ij,ij->i", moved, moved).max()
        return images if farthest <= allowed * allowed else None

    def within(
        self, points: np.ndarray, box: np.ndarray, images: np.ndarray, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The held pairs that are shorter than a cutoff now."""
        choose = compiled(choose_pairs) if len(points) >= FEWEST_ATOMS else None
        choose = choose_pairs_slowly if choose is None else choose
        index, shift = choose(self.index, self.shift, points, box, images, cutoff)
        return torch.from_numpy(index), torch.from_numpy(shift)


def choose_pairs_slowly(
    index: np.ndarray,
    shift: np.ndarray,
    points: np.ndarray,
    box: np.ndarray,
    images: np.ndarray,
    cutoff: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that are shorter than a cutoff, in NumPy.

    Parameters
    ----------
    index : numpy.ndarray, int64, shape (2, P)
        Centre and neighbour.
    shift : numpy.ndarray, float64, shape (P, 3)
        Image of the neighbour when no atom had jumped.
    points : numpy.ndarray, float64, shape (N, 3), Å
    box : numpy.ndarray, float64, shape (3, 3), Å
    images : numpy.ndarray, float64, shape (N, 3)
        Lattice vectors that each atom has jumped by.
    cutoff : float, Å

    Returns
    -------
    index : numpy.ndarray, int64, shape (2, E)
    shift : numpy.ndarray, float64, shape (E, 3)
        Images of the neighbours now.
    """
    center, neighbor = index
    present = shift + images[center] - images[neighbor]
    vectors = points[neighbor] - points[center] + present @ box
    near = np.einsum("ij,ij->i", vectors, vectors) < cutoff * cutoff
    return np.ascontiguousarray(index[:, near]), present[near]


def choose_pairs(index, shift, points, box, images, cutoff):
    """:func:`choose_pairs_slowly` as loops, to be compiled."""
    near = np.empty(index.shape[1], np.int64)
    count = 0
    for pair in range(index.shape[1]):
        i, j = index[0, pair], index[1, pair]
        a = shift[pair, 0] + images[i, 0] - images[j, 0]
        b = shift[pair, 1] + images[i, 1] - images[j, 1]
        c = shift[pair, 2] + images[i, 2] - images[j, 2]
        square = 0.0
        for axis in range(3):
            lattice = a * box[0, axis] + b * box[1, axis] + c * box[2, axis]
            component = points[j, axis] - points[i, axis] + lattice
            square += component * component
        if square < cutoff * cutoff:
            near[count] = pair
            count += 1
    chosen, present = np.empty((2, count), np.int64), np.empty((count, 3))
    for edge in range(count):
        pair = near[edge]
        i, j = index[0, pair], index[1, pair]
        chosen[0, edge], chosen[1, edge] = i, j
        for axis in range(3):
            present[edge, axis] = shift[pair, axis] + images[i, axis] - images[j, axis]
    return chosen, present
