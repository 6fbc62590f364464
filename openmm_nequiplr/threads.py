"""Multithreaded execution of compiled loops, which release the global interpreter lock.

The loops run on the threads of torch's OpenMP runtime if it is accessible. Another thread pool
would compete for the cores with these threads, which spin for milliseconds after each loop of
torch.

A forked process has none of its parent's threads, and OpenMP would wait for them forever.
Everything, torch included, therefore runs on one thread there.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

#: Number of atoms below which several threads are slower than one.
SMALL = 500

_pool = ThreadPoolExecutor(thread_name_prefix="nequiplr")
_forked: list[int] = []
_MEMBER = ctypes.CFUNCTYPE(None, ctypes.py_object)
_run_member = _MEMBER(lambda work: work())


def use_threads(count: int) -> None:
    """Set the number of threads of torch; it stays 1 in a forked process."""
    torch.set_num_threads(1 if _forked else count)


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Context manager that sets the number of threads of torch; no change for ``None``."""
    before = torch.get_num_threads()
    use_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_forked_child() -> None:
    _forked.append(os.getpid())
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def even_bounds(count: int, fewest: int) -> list[int]:
    """Bounds of the blocks of a loop with ``count`` iterations, one block per thread of torch.

    Parameters
    ----------
    count : int
    fewest : int
        Smallest number of iterations of a thread.
    """
    threads = max(min(torch.get_num_threads(), count // max(fewest, 1)), 1)
    return [count * number // threads for number in range(threads + 1)]


def each_block(bounds: Sequence[int], function: Callable[[int, int], Result]) -> list[Result]:
    """Call ``function(begin, end)`` for consecutive bounds in threads; return the results."""
    blocks = list(itertools.pairwise(bounds))
    if len(blocks) == 1 or _forked:
        return [function(*block) for block in blocks]
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    waiting = iter(enumerate(blocks))

    def work() -> None:
        # a team may be smaller than requested: each member takes blocks until none is left
        try:
            for number, block in waiting:
                results[number] = function(*block)
        except BaseException as error:  # exceptions must not propagate through OpenMP
            errors.append(error)

    team = _openmp_team()
    if team is None:
        others = [_pool.submit(work) for _ in blocks[1:]]
        work()
        for other in others:
            other.result()
    else:
        # always all threads: OpenMP ends threads that a team leaves out and has to restart them
        team(_run_member, work, torch.get_num_threads(), 0)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(blocks))]


@functools.cache
def _openmp_team() -> Any:
    """Function that starts a parallel region of torch's OpenMP runtime; None without one.

    It is ``GOMP_parallel(function, data, threads, flags)`` of GNU's runtime, which LLVM's and
    Intel's provide too
    (https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html).
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # the symbol is looked up in the library and in its dependencies
        team = ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_NOLOAD).GOMP_parallel
    except (OSError, AttributeError):  # another platform, or torch without OpenMP
        return None
    team.argtypes = [_MEMBER, ctypes.py_object, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    return team
