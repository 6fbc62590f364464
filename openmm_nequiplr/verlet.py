"""Verlet lists: neighbour lists with a skin, reused between steps and exact at every geometry."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .device_neighbors import neighbor_list_on
from .errors import InputError, describe
from .jit import compiled
from .lattice import displacements
from .neighbors import PairSearch, neighbor_list

#: Default skin, Å.
DEFAULT_SKIN = 1.0

_ROUNDING = 1e-9  # safety margin of the bound on displacements, Å


@dataclass(frozen=True)
class Candidates:
    """All pairs within a cutoff and some longer ones, for sums that check the distances.

    Parameters
    ----------
    edge_index : torch.Tensor, int64, shape (2, P)
    edge_shift : torch.Tensor, float64, shape (P, 3)
        As in :func:`openmm_nequiplr.neighbors.neighbor_list`, but for ``points``. Until the next
        search both tensors remain the same objects, and they must not be modified.
    points : numpy.ndarray, float64, shape (N, 3), Å
        Positions at the images to which the shifts refer.
    images : numpy.ndarray, float64, shape (N, 3)
        Integer lattice vectors between the positions and ``points``.
    search : int
        Number of the search that found the pairs.
    """

    edge_index: torch.Tensor
    edge_shift: torch.Tensor
    points: np.ndarray
    images: np.ndarray
    search: int


class Reach(NamedTuple):
    """Displacements for which a list of pairs is complete.

    Parameters
    ----------
    points : numpy.ndarray, float64, shape (N, 3), Å
    allowed : float, Å
        Largest displacement of an atom from there, apart from a common translation.
    """

    points: np.ndarray
    allowed: float


class VerletList:
    """Neighbour list within cutoff + skin, reused as long as it contains all pairs within cutoff.

    A call returns the edges of :func:`openmm_nequiplr.neighbors.neighbor_list` in the same order:
    those within the cutoff now. Previous calls affect only the time. On a GPU, selecting edges
    would synchronise the device, so all stored edges are returned; the caller must ignore longer
    edges, as networks do.

    The present geometry differs from that of the search by a strain F from the old cell to the new
    one, a displacement d of each atom modulo lattice vectors (atoms may be wrapped at any time),
    and a common translation. A pair that the search did not find was longer than R = cutoff + skin.
    It is now longer than s R − 2 max|d|, where s is the smallest singular value of F. No pair is
    missing as long as this bound is at least the cutoff. (Without strain: as long as no atom has
    moved by more than half the skin.)

    Parameters
    ----------
    skin : float, Å
        Zero requires a new search for every geometry.
    full : bool
        Whether pairs are listed in both directions, or once.
    device : torch.device or str
        Device on which the pairs are searched (:mod:`.device_neighbors`), stored and selected.
    search : callable, optional
        Search for other pairs than those of :func:`openmm_nequiplr.neighbors.neighbor_list`.
    replicas : int
        Number R of copies of a system, of N/R consecutive atoms each, without pairs between
        copies. They are searched on the CPU, and all of them again as soon as one moves too far.

    Attributes
    ----------
    searches : int
        Number of searches so far.

    Raises
    ------
    InputError
        If the skin is not a length.
    """

    def __init__(
        self,
        skin: float = DEFAULT_SKIN,
        full: bool = True,
        device: torch.device | str = "cpu",
        search: PairSearch | None = None,
        replicas: int = 1,
    ) -> None:
        if not 0.0 <= skin < np.inf:
            raise InputError(describe("skin", skin, "a length (Å), zero or more"))
        self.skin = float(skin)
        self.device = torch.device(device)
        if search is None and replicas > 1:
            search = functools.partial(neighbors_within, replicas, full=full)
        self._search = search or functools.partial(neighbor_list_on, self.device, full=full)
        self.searches = 0
        self._held: _Held | None = None

    def __call__(
        self, positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs within the cutoff, as from :func:`openmm_nequiplr.neighbors.neighbor_list`.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3), Å
        cell : numpy.ndarray, shape (3, 3), Å
        periodic : bool
        cutoff : float, Å
        """
        found = self.candidates(positions, cell, periodic, cutoff)
        if self.skin == 0.0:
            return found.edge_index, found.edge_shift
        if self.device.type != "cpu":
            return found.edge_index, _original_shifts(found.edge_index, found.edge_shift, found)
        box = np.ascontiguousarray(cell, dtype=np.float64) if periodic else np.zeros((3, 3))
        return _within(found, box, cutoff)

    def candidates(
        self, positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float
    ) -> Candidates:
        """All pairs within the cutoff and, unless the skin is zero, some longer ones.

        The arguments are those of a call.
        """
        points = np.ascontiguousarray(positions, dtype=np.float64)
        box = np.asarray(cell, dtype=np.float64) if periodic else np.zeros((3, 3))
        held, images = self._held, None
        if held is not None and self.skin > 0.0:
            images = held.images_if_complete(points, box, periodic, cutoff)
        if held is None or images is None:
            reach = cutoff + self.skin
            found = self._search(points, box, periodic, reach)
            index, shift = (tensor.to(self.device) for tensor in found)
            self._held = held = _Held(index, shift, points.copy(), box.copy(), periodic, reach)
            self.searches += 1
            images = np.zeros_like(points)
        unwrapped = points - images @ box if images.any() else points
        return Candidates(held.index, held.shift, unwrapped, images, self.searches)

    def reach(self, cell: np.ndarray, cutoff: float) -> Reach | None:
        """Displacements for which the list is complete in a cell, (3, 3), Å."""
        return None if self._held is None else self._held.completeness(cell, cutoff)


def neighbors_within(
    replicas: int,
    positions: np.ndarray,
    cell: np.ndarray,
    periodic: bool,
    cutoff: float,
    full: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of :func:`.neighbors.neighbor_list` within each of several replicas."""
    copies = positions.reshape(replicas, -1, 3)
    found = [neighbor_list(each, cell, periodic, cutoff, full) for each in copies]
    index = [pairs + k * copies.shape[1] for k, (pairs, _) in enumerate(found)]
    return torch.cat(index, dim=1), torch.cat([shift for _, shift in found])


@dataclass(frozen=True)
class _Held:
    """The pairs of a search, and its geometry."""

    index: torch.Tensor
    shift: torch.Tensor
    points: np.ndarray
    box: np.ndarray
    periodic: bool
    reach: float

    def completeness(self, box: np.ndarray, cutoff: float) -> Reach:
        """Displacements for which no pair is missing in a cell, shape (3, 3), Å."""
        shrunk, expected = 1.0, self.points
        if self.periodic and not np.array_equal(box, self.box):
            strain = np.linalg.solve(self.box, box)
            shrunk = float(np.linalg.svd(strain, compute_uv=False)[-1])
            expected = self.points @ strain
        return Reach(expected, 0.5 * (shrunk * self.reach - cutoff) - _ROUNDING)

    def images_if_complete(
        self, points: np.ndarray, box: np.ndarray, periodic: bool, cutoff: float
    ) -> np.ndarray | None:
        """Lattice vectors by which each atom was wrapped since the search.

        Returns
        -------
        numpy.ndarray or None, float64, shape (N, 3)
            Integers; ``None`` if pairs may be missing.
        """
        if periodic != self.periodic or points.shape != self.points.shape:
            return None
        expected, allowed = self.completeness(box, cutoff)
        if not allowed > 0.0:
            return None
        if periodic:
            moved, images = displacements(points, expected, box)
        else:
            moved, images = points - expected, np.zeros_like(points)
        moved -= moved.mean(axis=0)  # a common translation changes no pair
        farthest = np.einsum("ij,ij->i", moved, moved).max()
        return images if farthest <= allowed * allowed else None


def _within(found: Candidates, box: np.ndarray, cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates that are shorter than a cutoff, with shifts for the original positions."""
    loop = compiled(choose_pairs)
    if loop is None:
        points, vectors = torch.from_numpy(found.points), torch.from_numpy(box)
        index, shift = choose_pairs_slowly(
            found.edge_index, found.edge_shift, points, vectors, cutoff
        )
    else:
        pairs = (found.edge_index.numpy(), found.edge_shift.numpy())
        chosen = loop(*pairs, found.points, box, cutoff)
        index, shift = (torch.from_numpy(array) for array in chosen)
    return index, _original_shifts(index, shift, found)


def _original_shifts(index: torch.Tensor, shift: torch.Tensor, found: Candidates) -> torch.Tensor:
    """Shifts for the original positions."""
    if not found.images.any():
        return shift
    images = torch.from_numpy(found.images).to(index.device)
    return shift + images[index[0]] - images[index[1]]


def choose_pairs_slowly(
    index: torch.Tensor,
    shift: torch.Tensor,
    points: torch.Tensor,
    box: torch.Tensor,
    cutoff: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select pairs that are shorter than a cutoff, in torch on any device.

    Parameters
    ----------
    index : torch.Tensor, int64, shape (2, P)
        Centre and neighbour.
    shift : torch.Tensor, float64, shape (P, 3)
        Images of the neighbours.
    points : torch.Tensor, float64, shape (N, 3), Å
    box : torch.Tensor, float64, shape (3, 3), Å
    cutoff : float, Å

    Returns
    -------
    index : torch.Tensor, int64, shape (2, E)
    shift : torch.Tensor, float64, shape (E, 3)
    """
    center, neighbor = index
    vectors = points.index_select(0, neighbor) - points.index_select(0, center) + shift @ box
    near = torch.nonzero((vectors * vectors).sum(dim=-1) < cutoff * cutoff).squeeze(-1)
    return index.index_select(1, near), shift.index_select(0, near)


def choose_pairs(index, shift, points, box, cutoff):
    """:func:`choose_pairs_slowly` as loops over NumPy arrays, compiled by numba."""
    near = np.empty(index.shape[1], np.int64)
    limit = cutoff * cutoff
    count = 0
    for pair in range(index.shape[1]):
        i, j = index[0, pair], index[1, pair]
        a, b, c = shift[pair, 0], shift[pair, 1], shift[pair, 2]
        x = points[j, 0] - points[i, 0] + (a * box[0, 0] + b * box[1, 0] + c * box[2, 0])
        y = points[j, 1] - points[i, 1] + (a * box[0, 1] + b * box[1, 1] + c * box[2, 1])
        z = points[j, 2] - points[i, 2] + (a * box[0, 2] + b * box[1, 2] + c * box[2, 2])
        near[count] = pair  # overwritten unless the pair counts; without a branch twice as fast
        count += x * x + y * y + z * z < limit
    chosen, images = np.empty((2, count), np.int64), np.empty((count, 3))
    for edge in range(count):
        pair = near[edge]
        chosen[0, edge], chosen[1, edge] = index[0, pair], index[1, pair]
        for axis in range(3):
            images[edge, axis] = shift[pair, axis]
    return chosen, images
