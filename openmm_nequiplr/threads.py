"""Blocks of a loop on several threads: compiled loops release the interpreter lock.

They run on the threads of torch's own OpenMP runtime where that can be reached. Threads of another
pool have to share the cores with those, which go on spinning for milliseconds after each of torch's
loops.

A forked child has none of its parent's threads, and OpenMP waits for them forever. So everything
runs on one thread there, torch included.
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

#: Below this many atoms several threads cost more than they gain: they wait for one another.
SMALL = 500

_pool = ThreadPoolExecutor(thread_name_prefix="nequiplr")
_forked: list[int] = []
_MEMBER = ctypes.CFUNCTYPE(None, ctypes.py_object)
_run_member = _MEMBER(lambda work: work())


def use_threads(count: int) -> None:
    """Give torch so many threads; a forked child keeps its one."""
    torch.set_num_threads(1 if _forked else count)


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of torch inside a ``with`` block; not at all for ``None``."""
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
    """Where each of torch's threads begins in a loop of ``count`` passes, and the end.

    Parameters
    ----------
    count : int
    fewest : int
        Passes for which a second thread is worth waking.
    """
    threads = max(min(torch.get_num_threads(), count // max(fewest, 1)), 1)
    return [count * number // threads for number in range(threads + 1)]


def each_block(bounds: Sequence[int], function: Callable[[int, int], Result]) -> list[Result]:
    """``function(begin, end)`` of every two neighbouring bounds, in threads."""
    blocks = list(itertools.pairwise(bounds))
    if len(blocks) == 1 or _forked:
        return [function(*block) for block in blocks]
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    waiting = iter(enumerate(blocks))

    def work() -> None:
        # a team may be smaller than asked for: each member takes blocks until none is left
        try:
            for number, block in waiting:
                results[number] = function(*block)
        except BaseException as error:  # nothing may pass through OpenMP
            errors.append(error)

    team = _openmp_team()
    if team is None:
        others = [_pool.submit(work) for _ in blocks[1:]]
        work()
        for other in others:
            other.result()
    else:
        # always all threads: OpenMP ends those that a team leaves out and starts them anew later
        team(_run_member, work, torch.get_num_threads(), 0)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(blocks))]


@functools.cache
def _openmp_team() -> Any:
    """Entry to a parallel region of the OpenMP runtime that torch uses; None without one.

    ``GOMP_parallel(function, data, threads, flags)`` of GNU's runtime, which LLVM's and Intel's
    have as well (https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html).
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # a name is looked up in a library and in those that it depends on
        team = ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_NOLOAD).GOMP_parallel
    except (OSError, AttributeError):  # another platform, or torch without OpenMP
        return None
    team.argtypes = [_MEMBER, ctypes.py_object, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    return team
