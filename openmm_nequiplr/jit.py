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


def compiled_loop(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile with numba, which has to be there; machine code stays on disk.

    It is kept beside the source, or in the user's cache where that cannot be written; where neither
    can, it is compiled again in every process. The loop runs without the global interpreter lock.

    Parameters
    ----------
    options
        Further ones of ``numba.njit``.
    """
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no folder for the cache
            return numba.njit(nogil=True, **options)(function)

    return decorate


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Compile a function of a module like :func:`compiled_loop`, once per process.

    Parameters
    ----------
    function : callable
        Within numba's subset of Python.

    Returns
    -------
    callable or None
        ``None`` without a working numba.
    """
    if not numba_available():
        return None
    try:
        return compiled_loop()(function)
    except ImportError:  # installed, but not for this NumPy
        return None
