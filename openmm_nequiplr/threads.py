"""Blocks of a loop in threads of their own: compiled loops release the interpreter lock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

Result = TypeVar("Result")

_pool = ThreadPoolExecutor(thread_name_prefix="nequiplr")


def even_bounds(count: int, fewest: int) -> list[int]:
    """Where each of torch's threads begins in a loop of ``count`` passes, and the end.

    Parameters
    ----------
    count : int
    fewest : int
        Passes for which a second thread is worth waking.
    """
    threads = max(min(torch.get_num_threads(), count // fewest), 1)
    return np.linspace(0, count, threads + 1).astype(int).tolist()


def each_block(bounds: Sequence[int], function: Callable[[int, int], Result]) -> list[Result]:
    """``function(begin, end)`` of every two neighbouring bounds, in threads."""
    blocks = list(itertools.pairwise(bounds))
    if len(blocks) == 1:
        return [function(*blocks[0])]
    waiting = [_pool.submit(function, *block) for block in blocks[1:]]
    return [function(*blocks[0]), *(future.result() for future in waiting)]
