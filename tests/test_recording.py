"""Control flow of a recording, on a stand-in for CUDA; the emulator repeats real ones."""

from __future__ import annotations

import contextlib
from unittest.mock import MagicMock

import pytest
import torch

from openmm_nequiplr import recording
from openmm_nequiplr.recording import Recording

DEVICE = torch.device("cuda", 0)


class Stream:
    """A stream of a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, stream: Stream) -> None:
        pass


class Graph:
    """A graph whose end fails if an operation has invalidated the recording."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.resets, self.ended = cuda, 0, False

    def capture_begin(self, pool: tuple[int, int], capture_error_mode: str) -> None:
        assert capture_error_mode == "relaxed"
        self.cuda.underway.append(pool)

    def capture_end(self) -> None:
        if self.cuda.invalid:
            self.cuda.invalid = False
            if self.cuda.tidy:
                self.cuda.underway.pop()
            raise RuntimeError("operation failed due to a previous error during capture")
        self.cuda.underway.pop()
        self.ended = True
        if self.cuda.full:
            raise RuntimeError("out of memory")

    def pool(self) -> tuple[int, int]:
        if not self.ended:
            raise RuntimeError("without a preceding successful capture")
        return 0, self.cuda.pools

    def reset(self) -> None:
        self.resets += 1


class Cuda:
    """Torch's functions for CUDA: what its allocator has to be told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
        self.underway: list[tuple[int, int]] = []
        self.released: list[tuple[int, int]] = []
        self.invalid = self.full = self.tidy = False
        self.pools, self.emptied = 0, 0
        self.reserved, self.needed, self.free = 0, 0, 2**40
        here, self.used = lambda *_: contextlib.nullcontext(), list[Stream]()
        for name, value in {
            "CUDAGraph": lambda: Graph(self), "device": here, "stream": self.on,
            "Stream": Stream, "current_stream": MagicMock(), "current_device": lambda: 0,
            "graph_pool_handle": self.pool, "empty_cache": self.empty,
            "memory_reserved": lambda: self.reserved, "max_memory_allocated": lambda: self.needed,
            "mem_get_info": lambda: (self.free, 2**40),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
            monkeypatch.delattr(torch._C, name, raising=False)
        monkeypatch.setattr(torch._C, end, self.end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", self.release, raising=False)
        monkeypatch.setattr(recording, "_invalid", [])

    def on(self, stream: Stream) -> contextlib.nullcontext[None]:
        self.used.append(stream)
        return contextlib.nullcontext()

    def pool(self) -> tuple[int, int]:
        self.pools += 1
        return 0, self.pools

    def empty(self) -> None:
        assert not self.underway
        self.emptied += 1

    def end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.underway:
            raise RuntimeError("not currently recording to this pool")
        self.underway.remove(pool)

    def release(self, device: int, pool: tuple[int, int]) -> None:
        self.released.append(pool)


@pytest.fixture(params=["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"])
def cuda(request, monkeypatch):
    return Cuda(monkeypatch, request.param)


class Owner:
    """Owner of recordings."""


def test_the_result_is_that_of_the_function(cuda):
    assert Recording(lambda: cuda.underway.copy(), DEVICE, Owner()).result == [(0, 1)]
    assert (cuda.underway, cuda.released, cuda.emptied) == ([], [], 0)


def test_every_owner_has_a_stream_of_its_own(cuda):
    one, other, elsewhere = Owner(), Owner(), torch.device("cuda", 1)
    for owner, device in ((one, DEVICE), (other, DEVICE), (one, DEVICE), (one, elsewhere)):
        Recording(lambda: 1, device, owner)
    first, second, again, last = cuda.used
    assert first is again
    assert len({first, second, last}) == 3
    assert (first.device, last.device) == (DEVICE, elsewhere)
    del owner, one
    assert list(recording._streams) == [other]


def test_an_error_of_the_function_ends_the_recording(cuda):
    with pytest.raises(ValueError, match="strange"):
        Recording(lambda: int("strange"), DEVICE, Owner())
    assert (cuda.underway, cuda.released) == ([], [])


@pytest.mark.parametrize("tidy", [True, False])
@pytest.mark.parametrize("noticed", [True, False])
def test_an_invalid_recording_leaves_the_allocator_as_it_was(cuda, noticed, tidy):
    """CUDA invalidates it, whether or not the operation that is to blame raises an error."""
    cuda.tidy = tidy  # some versions of torch end the allocation of an invalid recording

    def wait() -> None:
        cuda.invalid = True
        if noticed:
            raise RuntimeError("not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted" if noticed else "previous error"):
        Recording(wait, DEVICE, Owner())
    assert (cuda.underway, cuda.released) == ([], [(0, 1)])
    assert [graph.resets for graph in recording._invalid] == [1]
    assert Recording(lambda: 1, DEVICE, Owner()).result == 1


def test_a_graph_that_ended_releases_its_own_memory(cuda):
    cuda.full = True
    with pytest.raises(RuntimeError, match="out of memory"):
        Recording(lambda: 1, DEVICE, Owner())
    assert (cuda.underway, cuda.released) == ([], [])
    assert [graph.resets for graph in recording._invalid] == [1]


@pytest.mark.parametrize(
    ("reserved", "needed", "free", "emptied"),
    [(2**28, 2**10, 2**40, 0), (2**29, 2**20, 2**40, 1), (2**32, 2**32, 2**31, 1)],
)
def test_the_memory_of_earlier_recordings_is_released(cuda, reserved, needed, free, emptied):
    cuda.reserved, cuda.needed, cuda.free = reserved, needed, free
    Recording(lambda: 1, DEVICE, Owner())
    assert cuda.emptied == emptied
