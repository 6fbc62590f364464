"""Neighbour search on a GPU by vesin; the pairs are those of :mod:`.neighbors`.

Positions are copied to the device once, the pairs stay there, and the host waits only for their
number. The lists are sorted by integer keys, so they are reproducible. The first list on a device
is compared with that of the CPU. If they differ or vesin fails, a note is issued and the CPU
searches.
"""

from __future__ import annotations

import numpy as np
import torch
from vesin import NeighborList

from .errors import InputError, first_line, notify
from .lattice import reduced_basis
from .neighbors import cell_heights, check_neighbors, neighbor_list, served_by_bins

# Errors of a vesin without CUDA, or of a GPU without free memory.
_FAILURES = (RuntimeError, OSError, AttributeError, TypeError, ValueError)
# Whether the list on each tested device agreed with that of the CPU.
_right: dict[str, bool] = {}


def neighbor_list_on(
    device: torch.device,
    positions: np.ndarray,
    cell: np.ndarray,
    periodic: bool,
    cutoff: float,
    full: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`.neighbors.neighbor_list` on a device; arguments, results and errors as there."""
    if device.type == "cpu":
        return neighbor_list(positions, cell, periodic, cutoff, full)
    key, problem = str(device), "it finds other pairs"
    if _right.get(key, True):
        try:
            found = _found_there(device, positions, cell, periodic, cutoff, full)
            if found is not None and key not in _right:
                _right[key] = _same(found, neighbor_list(positions, cell, periodic, cutoff, full))
            if found is not None and _right[key]:
                return found
        except InputError:
            raise
        except _FAILURES as error:
            _right[key] = False
            problem = first_line(error) or type(error).__name__
        if not _right.get(key, True):
            notify(f"the neighbour search runs on the CPU, because vesin fails on {key}: {problem}")
    index, shift = neighbor_list(positions, cell, periodic, cutoff, full)
    return index.to(device), shift.to(device)


def _same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(x.cpu(), y) for x, y in zip(found, expected, strict=True))


def _found_there(
    device: torch.device,
    positions: np.ndarray,
    cell: np.ndarray,
    periodic: bool,
    cutoff: float,
    full: bool,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Search on the device; None if vesin does not support the cell."""
    points = np.ascontiguousarray(positions, dtype=np.float64)
    basis, box = None, np.zeros((3, 3))
    heights = np.maximum(np.ptp(points, axis=0), 2.0 * cutoff)
    if periodic:
        basis = reduced_basis(cell)
        box = np.asarray(cell if basis is None else basis @ cell, dtype=np.float64)
        heights = cell_heights(box)
    check_neighbors(heights.tolist(), len(points), cutoff)
    if not served_by_bins(heights, cutoff):
        return None
    inner, vectors = torch.from_numpy(points).to(device), torch.from_numpy(box).to(device)
    cells = torch.zeros_like(inner)
    if periodic:
        cells = torch.floor(inner @ torch.from_numpy(np.linalg.inv(box)).to(device))
        inner = inner - cells @ vectors
    pairs, shift = search(inner, vectors, periodic, cutoff, full)
    bound = np.ceil(cutoff / heights) + 1.0
    if basis is not None:
        change = torch.from_numpy(basis).to(device)
        shift, cells, bound = shift @ change, cells @ change, bound @ np.abs(basis)
    if not full:
        a, b, c = shift.unbind(-1)
        leading = torch.where(a != 0, a, torch.where(b != 0, b, c))
        first, second = pairs.unbind(-1)
        backward = ((first > second) | ((first == second) & (leading < 0))).unsqueeze(-1)
        pairs = torch.where(backward, pairs.flip(-1), pairs)
        shift = torch.where(backward, -shift, shift)
    key = pairs[:, 0] * len(points) + pairs[:, 1]
    for axis, most in enumerate(bound.astype(np.int64).tolist()):
        key = key * (2 * most + 1) + (shift[:, axis].to(torch.int64) + most)
    order = torch.argsort(key)
    index, shift = pairs.index_select(0, order).t().contiguous(), shift.index_select(0, order)
    return index, shift + cells.index_select(0, index[0]) - cells.index_select(0, index[1])


def search(
    points: torch.Tensor, cell: torch.Tensor, periodic: bool, cutoff: float, full: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs, int64, shape (E, 2), and images, float64, shape (E, 3), in the order of vesin."""
    vesin = NeighborList(cutoff=float(cutoff), full_list=full, sorted=False, n_threads=1)
    with torch.cuda.device_of(points):
        pairs, shifts = vesin.compute(points, cell, periodic, quantities="PS")
    return pairs.view(torch.int64), shifts.to(torch.float64)
