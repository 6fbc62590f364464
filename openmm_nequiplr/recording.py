"""Kernels of a GPU that are recorded once and launched again as a whole (CUDA graphs)."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

Result = TypeVar("Result")

_lock = threading.Lock()  # torch records one graph at a time
# Graphs that CUDA has invalidated: torch's allocator may refer to them later.
_invalid: list[torch.cuda.CUDAGraph] = []
# cuBLAS has memory for each stream. Some versions of torch free it with any graph recorded there,
# although others may use it (pytorch#193402), so that each owner has a stream.
_streams: weakref.WeakKeyDictionary[Any, torch.cuda.Stream] = weakref.WeakKeyDictionary()


class Recording(Generic[Result]):
    """What a function does on a GPU, to be repeated without running the function.

    Repetitions read their inputs from the tensors that the function used and write their results to
    the tensors that it returned. The function must not wait for the GPU.

    Parameters
    ----------
    function : callable
        Has run before, so that nothing is compiled, searched or cached for the first time.
    device : torch.device
    owner : object
        Owner of the recording and of earlier ones, which it has deleted.

    Attributes
    ----------
    result
        Result of the function; its tensors have no values before the first :meth:`replay`.

    Raises
    ------
    RuntimeError
        If the function does what cannot be recorded.
    """

    def __init__(self, function: Callable[[], Result], device: torch.device, owner: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with _lock, torch.cuda.device(device):
            _make_room()
            current, aside = torch.cuda.current_stream(), _streams.get(owner)
            if aside is None or aside.device != device:
                _streams[owner] = aside = torch.cuda.Stream(device)
            pool = torch.cuda.graph_pool_handle()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                # other threads, such as those of OpenMM, may use the device meanwhile, and this
                # one may load modules or create handles of libraries
                self._graph.capture_begin(pool, capture_error_mode="relaxed")
                try:
                    self.result = function()
                except BaseException:
                    with contextlib.suppress(RuntimeError):  # the first error says more
                        self._end(pool)
                    raise
                self._end(pool)
            current.wait_stream(aside)

    def _end(self, pool: tuple[int, int]) -> None:
        try:
            self._graph.capture_end()
        except RuntimeError:
            _abandon(self._graph, pool)
            raise

    def replay(self) -> None:
        """Do it again, with the present values of the inputs."""
        self._graph.replay()


def _make_room() -> None:
    """Release the memory of earlier recordings before it is a lot; each has its own."""
    needed, free = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[0]
    if torch.cuda.memory_reserved() > min(3 * needed + 2**28, free):
        torch.cuda.empty_cache()


def _abandon(graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
    """Release the memory of a recording that CUDA has invalidated.

    Torch does not. Many versions also leave their allocator in the state for recordings, in which
    it neither empties its cache nor, short of memory, uses what is in there.
    """
    _invalid.append(graph)
    names = "_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"  # before torch 2.8
    end = next(getattr(torch._C, name) for name in names if hasattr(torch._C, name))
    device = torch.cuda.current_device()
    with contextlib.suppress(RuntimeError):  # this version has done so
        end(device, pool)
    try:
        graph.pool()
    except RuntimeError:  # it does not know that it has ended, and would not release the memory
        torch._C._cuda_releasePool(device, pool)
    graph.reset()
