"""Neighbour lists by vesin, with periodic images, for cells of any shape and size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from vesin import NeighborList

from .errors import InputError
from .lattice import check_cell, reduced_basis

#: Returns pairs and integer images for ``(positions, cell, periodic, cutoff)``.
PairSearch = Callable[[np.ndarray, np.ndarray, bool, float], tuple[torch.Tensor, torch.Tensor]]

#: Largest number of neighbours, and density (1/Å³, twice diamond's) up to which more are allowed.
MOST_NEIGHBORS, DENSEST = 2000.0, 0.5

# vesin sorts atoms into bins as wide as the cutoff. Beyond this number it uses fewer, wider bins
# and divides by zero for cells that are long and thin, or flat.
_MOST_BINS = 1e5
# vesin visits all bins and images within the cutoff of each bin, including empty ones.
_MOST_VISITS = 1e7


def cell_heights(cell: np.ndarray) -> np.ndarray:
    """Heights of a cell: distances between opposite faces.

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
    volume = abs(float(np.linalg.det(check_cell(cell, shortest=0.0))))
    normals = np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]])
    return volume / np.linalg.norm(normals, axis=1)


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of atoms and images within a cutoff, including an atom's own images.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
        May lie outside the cell.
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are the lattice vectors; ignored if not periodic.
    periodic : bool
        Periodic in all three directions, or in none.
    cutoff : float, Å
    full : bool
        Whether each pair is listed in both directions. Otherwise it is listed once, with the
        smaller index first; of an atom's own images those whose first nonzero shift is positive.

    Returns
    -------
    edge_index : torch.Tensor, int64, shape (2, E)
        Row 0 is the centre, row 1 the neighbour.
    edge_shift : torch.Tensor, float64, shape (E, 3)
        Integer images: ``r = x[neighbour] - x[centre] + shift @ cell``.
        Edges are sorted by centre, neighbour and shift.

    Raises
    ------
    BoxError
        If the structure is periodic and the cell has no volume.
    InputError
        If the atoms have too many neighbours.
    """
    points = np.ascontiguousarray(positions, dtype=np.float64)
    box = np.asarray(cell if periodic else np.zeros((3, 3)), dtype=np.float64)
    pairs, shifts, _, whole = search_pairs(points, box, periodic, cutoff, full)
    if not full:
        backward = _is_backward(pairs, shifts)
        pairs[backward] = pairs[backward, ::-1]
        shifts[backward] *= -1
    # the cells between two atoms are equal for all their images and are left out of the key
    order = np.argsort(_sort_key(pairs, shifts, len(points)))
    pairs, shifts = pairs[order], shifts[order]
    if whole is not None:
        shifts += whole[pairs[:, 0]] - whole[pairs[:, 1]]
    edge_index = torch.from_numpy(np.ascontiguousarray(pairs.T))
    return edge_index, torch.from_numpy(shifts.astype(np.float64))


def two_way(
    edge_index: torch.Tensor, edge_shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reorder a full list: every pair once in the first half, and reversed in the second half.

    Parameters
    ----------
    edge_index, edge_shift : torch.Tensor
        Results of :func:`neighbor_list`.
    """
    backward = torch.from_numpy(_is_backward(edge_index.numpy().T, edge_shift.numpy()))
    ends, shift = edge_index[:, ~backward], edge_shift[~backward]
    return torch.cat((ends, ends.flip(0)), dim=1), torch.cat((shift, -shift))


def pairs_within(
    positions: np.ndarray, cell: np.ndarray | None, cutoff: float, full: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of :func:`neighbor_list` and the vectors between them.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
        None for a structure that is not periodic.
    cutoff : float, Å
    full : bool

    Returns
    -------
    first, second : numpy.ndarray, int64, shape (E,)
    vectors : numpy.ndarray, float64, shape (E, 3), Å
    """
    box = np.zeros((3, 3)) if cell is None else cell
    index, shift = neighbor_list(positions, box, cell is not None, cutoff, full)
    first, second = index.numpy()
    return first, second, positions[second] - positions[first] + shift.numpy() @ box


def search_pairs(
    points: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Pairs of :func:`neighbor_list` in arbitrary order and direction; arguments as there.

    Returns
    -------
    pairs : numpy.ndarray, int64, shape (E, 2)
    shifts : numpy.ndarray, int64, shape (E, 3)
        Images for atoms wrapped into the cell.
    distances : numpy.ndarray, float64, shape (E,), Å
    whole : numpy.ndarray or None, int64, shape (N, 3)
        Lattice vectors subtracted by wrapping each atom; None if all are zero.
        ``shifts + whole[first] - whole[second]`` are the images for the given points.
    """
    if not periodic:
        low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
        extent = np.maximum(high - low, 2.0 * cutoff)
        check_neighbors(extent.tolist(), len(points), cutoff)
        return *_pairs_of(points - low, cell, False, cutoff, full, extent), None
    basis = reduced_basis(cell)
    box = cell if basis is None else basis @ cell
    heights = cell_heights(box)
    check_neighbors(heights.tolist(), len(points), cutoff)
    cells = np.floor(points @ np.linalg.inv(box))
    inner = points - cells @ box
    pairs, shifts, distances = _pairs_of(inner, box, True, cutoff, full, heights)
    whole = cells.astype(np.int64)
    if basis is not None:
        change = basis.astype(np.int64)
        shifts, whole = shifts @ change, whole @ change
    return pairs, shifts, distances, whole if whole.any() else None


def check_neighbors(heights: list[float], count: int, cutoff: float) -> None:
    """Check the expected number of pairs before memory is allocated; arguments of :func:`crowding`.

    Raises
    ------
    InputError
        If there are more pairs than in any material.
    """
    message = crowding(heights, count, cutoff)
    if message:
        raise InputError(message)


def crowding(
    heights: list[float],
    count: int,
    cutoff: float,
    most: float = MOST_NEIGHBORS,
    densest: float = DENSEST,
) -> str:
    """Error message if the atoms have too many neighbours; otherwise empty.

    The number is estimated for uniformly distributed atoms, or for the images of a single atom if
    these are more. TorchScript compiles this function.

    Parameters
    ----------
    heights : list of 3 floats, Å
        Heights of the cell, or extents of the structure along each axis.
    count : int
        Number of atoms.
    cutoff : float, Å
    most : float
        Number of neighbours that is always allowed.
    densest : float, 1/Å³
        Density up to which more neighbours are allowed.
    """
    even, own = float(count), 1.0
    for height in heights:
        even *= 2.0 * cutoff / height
        own *= max(1.0, 2.0 * cutoff / height)
    expected = math.pi / 6.0 * max(even, own)
    if expected <= max(most, densest * 4.0 / 3.0 * math.pi * cutoff**3):
        return ""
    size = f"{heights[0]} x {heights[1]} x {heights[2]} Å"
    return (
        "cell, positions: expected room for atoms at the distances of a material, got "
        f"{count} within {size}: each would have about {math.floor(expected)} neighbours within "
        f"{cutoff} Å; are the lengths in Å?"
    )


def served_by_bins(heights: np.ndarray, cutoff: float) -> bool:
    """Whether vesin supports a cell of these heights, shape (3,), Å."""
    bins = np.prod(np.maximum(heights / cutoff, 1.0))
    visits = bins * np.prod(2.0 * np.ceil(cutoff / heights) + 1.0)
    return bool(bins <= _MOST_BINS and visits <= _MOST_VISITS)


def _pairs_of(
    points: np.ndarray,
    cell: np.ndarray,
    periodic: bool,
    cutoff: float,
    full: bool,
    heights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, shifts and distances, by vesin or, where its bins fail, by k-d trees."""
    if not served_by_bins(heights, cutoff):
        return _pairs_by_tree(points, cell, periodic, cutoff, full)
    search = NeighborList(cutoff=float(cutoff), full_list=full, sorted=False, n_threads=1)
    pairs, shifts, distances = search.compute(points, cell, periodic, quantities="PSd")
    return pairs.view(np.int64), shifts.astype(np.int64), distances


def _pairs_by_tree(
    points: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`_pairs_of` by SciPy's k-d trees of the atoms and of the images near the cell."""
    from scipy.spatial import cKDTree  # slow to import, and seldom needed

    margin, place = np.zeros(3), np.full_like(points, 0.5)
    if periodic:
        margin, place = cutoff / cell_heights(cell), points @ np.linalg.inv(cell)
    atoms, images = _images_near(place, -margin, 1.0 + margin)
    tree = cKDTree(points[atoms] + images @ cell)
    found = cKDTree(points).sparse_distance_matrix(tree, cutoff, output_type="coo_matrix")
    pairs = np.stack((found.row, atoms[found.col]), axis=1).astype(np.int64)
    shifts = images[found.col]
    kept = (found.data < cutoff) & ((pairs[:, 0] != pairs[:, 1]) | shifts.any(axis=1))
    if not full:
        kept &= ~_is_backward(pairs, shifts)
    return pairs[kept], shifts[kept], found.data[kept]


def pairs_between(
    centers: np.ndarray, others: np.ndarray, cell: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one set of points with the images of another in a cell.

    The cost is small if there are few centers.

    Parameters
    ----------
    centers, others : numpy.ndarray, float64, shapes (N, 3) and (M, 3), Å
        May lie outside the cell.
    cell : numpy.ndarray, float64, shape (3, 3), Å
    cutoff : float, Å

    Returns
    -------
    center, other : numpy.ndarray, int64, shape (P,)
    shift : numpy.ndarray, int64, shape (P, 3)
        Integer images of the others.
    """
    from scipy.spatial import cKDTree

    inverse, margin = np.linalg.inv(cell), cutoff / cell_heights(cell)
    inside, place = centers @ inverse, others @ inverse
    whole = np.floor(place).astype(np.int64)
    low, high = inside.min(axis=0) - margin, inside.max(axis=0) + margin
    found, images = _images_near(place - whole, low, high)
    images -= whole[found]
    tree = cKDTree(others[found] + images @ cell)
    near = cKDTree(centers).sparse_distance_matrix(tree, cutoff, output_type="coo_matrix")
    return near.row.astype(np.int64), found[near.col], images[near.col]


def _images_near(
    place: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Atoms and images, int64, (G,) and (G, 3), between bounds in fractional coordinates.

    The fractional coordinates ``place``, shape (N, 3), lie between 0 and 1.
    """
    steps = [
        np.arange(math.floor(a - 1.0), math.ceil(b) + 1)
        for a, b in zip(low.tolist(), high.tolist(), strict=True)
    ]
    near = []
    for axis in range(3):  # for each image, whether each atom is within the bounds along the axis
        moved = place[:, axis] + steps[axis][:, None]
        near.append((moved > low[axis] - 1e-9) & (moved < high[axis] + 1e-9))
    kept, images = [], []
    for x, y, z in itertools.product(*(range(len(s)) for s in steps)):
        chosen = np.flatnonzero(near[0][x] & near[1][y] & near[2][z])
        kept.append(chosen)
        step = steps[0][x], steps[1][y], steps[2][z]
        images.append(np.broadcast_to(step, (len(chosen), 3)))
    return np.concatenate(kept), np.concatenate(images)


def _is_backward(pairs: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Pairs to reverse for the half list, bool, shape (E,)."""
    a, b, c = shifts.T
    leading = np.where(a != 0, a, np.where(b != 0, b, c))
    first, second = pairs.T
    return (first > second) | ((first == second) & (leading < 0))


def _sort_key(pairs: np.ndarray, shifts: np.ndarray, count: int) -> np.ndarray:
    """Sort key of each pair: by centre, neighbour and shift; int64, shape (E,)."""
    key = pairs[:, 0] * count + pairs[:, 1]
    if len(shifts) == 0:
        return key
    for column in np.ascontiguousarray(shifts.T):
        least, most = column.min(), column.max()
        key = key * (most - least + 1) + (column - least)
    return key
