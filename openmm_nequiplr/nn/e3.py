"""Names imported from e3nn, without loading torch's compiler.

e3nn excludes one function from compilation with ``torch.compiler.disable``, which loads
``torch._dynamo`` and adds more than a second to every start. The exclusion matters only if the
compiler is loaded, so it is applied here when the function is called. e3nn also estimates the norm
of an activation from a million random numbers each time it is used; the norms of plain functions
are cached here.
"""

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch

_importing = threading.Lock()
_disable = torch.compiler.disable


def _disabled_in_compilation(function: Any = None, *options: Any, **more: Any) -> Any:
    """``torch.compiler.disable`` that does not load the compiler."""
    if function is None:
        return functools.partial(_disabled_in_compilation, **more)

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            return _disable(function, *options, **more)(*values, **named)
        return function(*values, **named)

    return call


@contextmanager
def _without_compiler() -> Iterator[None]:
    with _importing:
        torch.compiler.disable = _disabled_in_compilation  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.compiler.disable = _disable  # type: ignore[assignment]


with _without_compiler():
    from e3nn import o3
    from e3nn.math import _normalize_activation as _norms
    from e3nn.nn import Activation, FullyConnectedNet
    from e3nn.nn._fc import _Layer as FullyConnectedLayer
    from e3nn.o3._spherical_harmonics import _spherical_harmonics as harmonics_of_vectors
    from e3nn.util.jit import script


def _kept(moment: Callable[..., Any]) -> Callable[..., Any]:
    """Cache the moments of plain functions; those of modules may change."""
    remembered = functools.lru_cache(maxsize=64)(moment)

    @functools.wraps(moment)
    def call(f: Any, n: int, dtype: Any = None, device: Any = None) -> Any:
        plain = isinstance(f, FunctionType | BuiltinFunctionType)
        return (remembered if plain else moment)(f, n, dtype, device)

    return call


_norms.moment = _kept(_norms.moment)
normalize2mom = _norms.normalize2mom

__all__ = [
    "Activation", "FullyConnectedLayer", "FullyConnectedNet", "harmonics_of_vectors",
    "normalize2mom", "o3", "script",
]  # fmt: skip
