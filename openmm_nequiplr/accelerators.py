"""Neighbour searches by mlipops where that is installed, proves right and is faster: never needed.

Lists for a GPU are otherwise searched by vesin on the host and sent there. mlipops (successor of
NNPOps; Triton kernels) searches on the device. On the CPU it looks at all N² pairs and is slower
than vesin (``benchmarks/accelerators.py``), so only CUDA devices are offered it.

What was verified, on the CPU alone and with mlipops 0.6: its search there, and its Triton kernels
under Triton's interpreter. No GPU was at hand, hence the trial of :class:`TriedSearch` on the
machine itself. mlipops gets rectangular cells only, or none: the blocks of atoms by which it
searches large structures on CUDA are compared by nearest images of their centres, and in triclinic
cells that leaves out pairs. An error after which CUDA itself is unusable cannot be caught here.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch

from .errors import BackendError
from .neighbors import neighbor_list

#: Finds ``(edge_index, edge_shift)`` for ``(positions, cell, periodic, cutoff, full)``; see
#: :func:`openmm_nequiplr.neighbors.neighbor_list`.
Search = Callable[
    [np.ndarray, np.ndarray, bool, float, bool], tuple[torch.Tensor, torch.Tensor] | None
]
#: Searches by both, for comparison; the first is not timed, for it compiles kernels.
TRIALS = 4

_MARGIN = 1e-5  # mlipops' kernels take the cutoff in single precision
_BUFFER = 10_000  # pairs that fill mlipops' first buffer exactly are not all written


def resolve_device(device: str | torch.device | None) -> str:
    """Name of the torch device to use; CUDA where there is one unless asked otherwise.

    Raises
    ------
    BackendError
        If the device is unknown or absent, or cannot compute.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        float(torch.zeros((), device=device))  # a device without data ("meta") fails here
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"device: expected one that torch can use, got {device!r} ({reason})"
        ) from error
    return str(device)


def accelerator_available() -> bool:
    """Whether mlipops and the Triton that it needs on a GPU are installed; imports neither."""
    return all(importlib.util.find_spec(name) is not None for name in ("mlipops", "triton"))


def neighbor_search(device: torch.device | str) -> HostSearch | TriedSearch:
    """The search for lists on a device: the same pairs in the same order, whichever it is.

    Parameters
    ----------
    device : torch.device or str
        Where the answers will be.
    """
    device = torch.device(device)
    if device.type == "cuda" and accelerator_available():
        return TriedSearch(device)
    return HostSearch(device)


class HostSearch:
    """:func:`openmm_nequiplr.neighbors.neighbor_list`, with the answers on a device."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(
        self, positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Arguments and answers as those of ``neighbor_list``."""
        index, shift = neighbor_list(positions, cell, periodic, cutoff, full)
        return index.to(self._device), shift.to(self._device)


class DeviceSearch:
    """Pairs found by mlipops on a device, then chosen and sorted in double precision.

    Its slow twin is :class:`HostSearch`.

    Parameters
    ----------
    device : torch.device or str
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(
        self, positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """As ``neighbor_list``; ``None`` where this search cannot be trusted with the task.

        That is so if the structure is periodic and the cell is not rectangular, or not wider than
        twice the cutoff.
        """
        reach = cutoff * (1.0 + _MARGIN)
        edges = np.diagonal(cell)
        if periodic and not (np.array_equal(cell, np.diag(edges)) and edges.min() > 2.0 * reach):
            return None
        from mlipops import NeighborList

        points = torch.tensor(positions, dtype=torch.float64, device=self._device)
        box = torch.tensor(cell, dtype=torch.float64, device=self._device) if periodic else None
        # made anew: a list that is kept holds on to its tensors and to the size of its buffer
        found = NeighborList(reach, device=str(self._device))(points, box)
        if len(found) == _BUFFER:
            return None
        pairs = found.long().sort(dim=1).values.T
        vectors = points[pairs[1]] - points[pairs[0]]
        shift = torch.zeros_like(vectors)
        if box is not None:
            shift = -torch.round(vectors / box.diagonal())
            vectors = vectors + shift @ box
        near = torch.nonzero((vectors * vectors).sum(dim=-1) < cutoff * cutoff).squeeze(-1)
        return _sorted(pairs[:, near], shift[near] + 0.0, len(points), full)


class TriedSearch:
    """Both searches at first; then mlipops', if it always found the same and was faster.

    Whatever it raises, differs in or will not do is left to the search on the host, whose answers
    are returned throughout the trial.

    Parameters
    ----------
    device : torch.device or str
    fast : callable, optional
        The search on trial; by default :class:`DeviceSearch`.

    Attributes
    ----------
    chosen : bool or None
        Whether ``fast`` is used; ``None`` while the trial lasts.
    reason : str
        Why not, where it is not.
    """

    def __init__(self, device: torch.device | str, fast: Search | None = None) -> None:
        self._device = torch.device(device)
        self._fast: Search = DeviceSearch(device) if fast is None else fast
        self._host = HostSearch(device)
        self._trials = 0
        self._seconds = [0.0, 0.0]
        self.chosen: bool | None = None
        self.reason = ""

    def __call__(
        self, positions: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float, full: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Arguments and answers as those of ``neighbor_list``."""
        task = (positions, cell, periodic, cutoff, full)
        if self.chosen is False:
            return self._host(*task)
        found, fast = self._timed(self._attempt, task)
        if self.chosen and found is not None:
            return found
        expected, slow = self._timed(self._host, task)
        assert expected is not None
        if found is not None and self.chosen is None:
            self._judge(found, expected, fast, slow)
        return expected

    def _attempt(self, *task) -> tuple[torch.Tensor, torch.Tensor] | None:
        try:
            return self._fast(*task)
        except Exception as error:  # of mlipops, Triton or CUDA: none of them is needed
            self.chosen, self.reason = False, f"raised {type(error).__name__}: {error}"
            return None

    def _timed(
        self, search: Search, task
    ) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, float]:
        began = self._now()
        found = search(*task)
        return found, self._now() - began

    def _now(self) -> float:
        if self._device.type == "cuda" and self.chosen is None:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _judge(self, found, expected, fast: float, slow: float) -> None:
        if not all(torch.equal(*pair) for pair in zip(found, expected, strict=True)):
            self.chosen, self.reason = False, "found other pairs"
            return
        if self._trials > 0:
            self._seconds[0] += fast
            self._seconds[1] += slow
        self._trials += 1
        if self._trials == TRIALS:
            self.chosen = self._seconds[0] < self._seconds[1]
            self.reason = "" if self.chosen else "slower than the search on the host"


def _sorted(
    pairs: torch.Tensor, shift: torch.Tensor, count: int, full: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of one image each, smaller index first, in the order and directions of a list."""
    if full:
        pairs = torch.cat((pairs, pairs.flip(0)), dim=1)
        shift = torch.cat((shift, -shift + 0.0))  # no negative zeros
    order = torch.argsort(pairs[0] * count + pairs[1])
    return pairs[:, order].contiguous(), shift[order]
