"""Which kernel runs: a compiled one where there is one for the device and dtype, else torch.

The plain torch reference of an operator is what TorchScript compiles, into a graph that runs
without this package.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch

from .. import threads as _threads  # noqa: F401  (what a forked child needs, before it is forked)
from ..jit import numba_available

_DTYPES = (torch.float32, torch.float64, torch.int32, torch.int64)
_enabled: ContextVar[bool] = ContextVar("compiled", default=True)


@contextlib.contextmanager
def references() -> Iterator[None]:
    """Run the plain torch references inside a ``with`` block, in this thread.

    They can be differentiated as often as wanted; compiled kernels once in inference and twice in
    training.
    """
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


@functools.cache
def kernels(module: str) -> Any:
    """A module of compiled loops beside this one; numba is imported when they are first used."""
    return importlib.import_module(f".{module}", __package__)


@functools.cache
def _numba_works() -> bool:
    if not numba_available():
        return False
    try:
        from . import convolution_kernels  # noqa: F401
    except ImportError:  # installed, but not for this NumPy
        return False
    return True


def compiled(tensor: torch.Tensor) -> bool:
    """Whether kernels are compiled for a tensor's device and dtype, and allowed.

    A kernel for another kind of device is registered with its operator and added here.
    """
    if tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
        return False
    return _enabled.get() and _numba_works()


def register(schema: str, module: str, function: str, device: str = "cpu") -> None:
    """Make a kernel known to torch.

    Parameters
    ----------
    schema : str
        Name, arguments and results, such as ``"name(Tensor x, int[] shape) -> Tensor"``.
    module, function : str
        Where the kernel stands, see :func:`kernels`.
    device : str
        Type of the tensors that it takes.
    """
    name = f"openmm_nequiplr::{schema.partition('(')[0]}"
    torch.library.define(name, schema[schema.index("(") :])
    torch.library.impl(name, device)(lambda *values: getattr(kernels(module), function)(*values))
