"""Neighbour lists (vesin), with periodic images resolved for any cell."""

from __future__ import annotations

import numpy as np
import torch
from vesin import NeighborList

from .errors import BoxError, describe


def cell_heights(cell: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of a cell.

    Parameters
    ----------
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are the lattice vectors.

    Returns
    -------
    numpy.ndarray, shape (3,), Å

    Raises
    ------
    BoxError
        If the cell has no volume.
    """
    volume = abs(float(np.linalg.det(cell)))
    if not np.isfinite(volume) or volume < 1e-6:
        raise BoxError(describe("cell", np.asarray(cell).tolist(), "three independent vectors"))
    normals = np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]])
    return volume / np.linalg.norm(normals, axis=1)


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of atoms (and of atoms with images, their own too) within a cutoff.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
        Need not lie inside the cell.
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are the lattice vectors; ignored when not periodic.
    periodic : bool
        Periodic in all three directions, or in none.
    cutoff : float, Å
    full : bool
        Every pair in both directions, or once only: with the smaller index first, and of an atom
        and its images those whose first nonzero shift is positive.

    Returns
    -------
    edge_index : torch.Tensor, int64, shape (2, E)
        Row 0 the centre, row 1 the neighbour.
    edge_shift : torch.Tensor, float64, shape (E, 3)
        Integer images: ``r = x[neighbour] - x[centre] + shift @ cell``.
        Edges are sorted by centre, neighbour and shift, whatever the positions.

    Raises
    ------
    BoxError
        If the structure is periodic and the cell has no volume.
    """
    if periodic:
        cell_heights(cell)  # refuses a cell without volume
    search = NeighborList(cutoff=float(cutoff), full_list=full, n_threads=1)
    box = np.asarray(cell if periodic else np.zeros((3, 3)), dtype=np.float64)
    points = np.ascontiguousarray(positions, dtype=np.float64)
    found, images = search.compute(points, box, periodic, quantities="PS")
    pairs, shifts = found.astype(np.int64), images.astype(np.int64)
    if not full:
        backward = _is_backward(pairs, shifts)
        pairs[backward] = pairs[backward, ::-1]
        shifts[backward] *= -1
    order = np.argsort(_sort_key(pairs, shifts, len(points)))
    edge_index = torch.from_numpy(np.ascontiguousarray(pairs[order].T))
    edge_shift = torch.from_numpy(shifts[order].astype(np.float64))
    return edge_index, edge_shift


def _is_backward(pairs: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Which pairs the half list wants the other way round, bool, shape (E,)."""
    a, b, c = shifts.T
    leading = np.where(a != 0, a, np.where(b != 0, b, c))
    first, second = pairs.T
    return (first > second) | ((first == second) & (leading < 0))


def _sort_key(pairs: np.ndarray, shifts: np.ndarray, count: int) -> np.ndarray:
    """A number for each pair that grows with centre, neighbour and shift; int64, shape (E,)."""
    key = pairs[:, 0] * count + pairs[:, 1]
    if len(shifts) == 0:
        return key
    for column in np.ascontiguousarray(shifts.T):
        least, most = column.min(), column.max()
        key = key * (most - least + 1) + (column - least)
    return key
