"""Kernels of a GPU that are recorded once and launched again as a whole (CUDA graphs)."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

_lock = threading.Lock()  # a stream records one function at a time


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Stream on which kernels are recorded; libraries keep memory for each stream."""
    return torch.cuda.Stream(device)


class Recording(Generic[Result]):
    """What a function does on a GPU, to be repeated without running the function.

    Repetitions read their inputs from the tensors that the function used and write their results to
    the tensors that it returned. The function must not wait for the GPU.

    Parameters
    ----------
    function : callable
        Has run before, so that nothing is compiled, searched or cached for the first time.
    device : torch.device

    Attributes
    ----------
    result
        Result of the function; its tensors have no values before the first :meth:`replay`.

    Raises
    ------
    RuntimeError
        If the function does what cannot be recorded.
    """

    def __init__(self, function: Callable[[], Result], device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with _lock, torch.cuda.device(device):
            if torch.cuda.memory_reserved() > torch.cuda.mem_get_info()[0]:
                torch.cuda.empty_cache()  # a recording has memory of its own
            current, aside = torch.cuda.current_stream(), _stream(device)
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                # other threads, such as those of OpenMM, may use the device meanwhile
                self._graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.result = function()
                except BaseException:
                    with contextlib.suppress(RuntimeError):
                        self._graph.capture_end()
                    raise
                self._graph.capture_end()
            current.wait_stream(aside)

    def replay(self) -> None:
        """Do it again, with the present values of the inputs."""
        self._graph.replay()
