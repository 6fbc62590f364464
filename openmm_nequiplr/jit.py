"""Compilation of loops by numba, if it is installed; each loop has a slow alternative."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any


@functools.cache
def numba_available() -> bool:
    """Whether numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


def compiled_loop(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that compiles a function with numba, which must be installed.

    The machine code is cached in the directory of the source, or in the user's cache if that is not
    writable. If neither is, each process compiles it again. The loop runs without the global
    interpreter lock.

    Parameters
    ----------
    options
        Further options of ``numba.njit``.
    """
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no writable cache
            return numba.njit(nogil=True, **options)(function)

    return decorate


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Compile a module-level function as :func:`compiled_loop` does, once per process.

    Parameters
    ----------
    function : callable
        Function in the subset of Python that numba supports.

    Returns
    -------
    callable or None
        ``None`` without a working numba.
    """
    if not numba_available():
        return None
    try:
        return compiled_loop()(function)
    except ImportError:  # installed, but incompatible with this NumPy
        return None
