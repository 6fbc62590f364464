"""Loops compiled by numba where it is there; every user keeps a slow twin for where it is not."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

#: Below this many atoms the slow twin is done before numba is imported.
FEWEST_ATOMS = 500


@functools.cache
def numba_available() -> bool:
    """Whether numba is installed; it is not imported for the answer."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Compile a function of a module, once per process.

    The machine code is kept beside the source, or in the user's cache where that cannot be
    written; where neither can, it is compiled again in every process.

    Parameters
    ----------
    function : callable
        Within numba's subset of Python. It runs without the global interpreter lock.

    Returns
    -------
    callable or None
        ``None`` without a working numba.
    """
    if not numba_available():
        return None
    try:
        import numba
    except ImportError:  # installed, but not for this NumPy
        return None
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache
        return numba.njit(nogil=True)(function)
