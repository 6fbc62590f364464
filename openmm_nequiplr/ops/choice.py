"""Which kernel runs: a compiled one where there is one for the device and dtype, else torch.

Kernels for the CPU are compiled by numba and stand in modules ``*_kernels``; those for CUDA are
compiled by Triton and stand in ``*_triton``.

The plain torch reference of an operator is what TorchScript compiles, into a graph that runs
without this package.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch

from .. import threads as _threads  # noqa: F401  (what a forked child needs, before it is forked)

#: What compiles the kernels for a type of device, and how their modules' names end.
COMPILERS = {"cpu": ("numba", "kernels"), "cuda": ("triton", "triton")}
#: Family and function of each operator's kernels, and the types of device that have them.
OPERATORS: dict[str, tuple[str, str, tuple[str, ...]]] = {}
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
def kernels(family: str, device: str) -> Any:
    """A module of kernels beside this one; their compiler is imported when they are first used."""
    return importlib.import_module(f".{family}_{COMPILERS[device][1]}", __package__)


@functools.cache
def _works(device: str) -> bool:
    """Whether the compiler for a type of device is installed, and loads."""
    if device not in COMPILERS or importlib.util.find_spec(COMPILERS[device][0]) is None:
        return False
    try:
        kernels("convolution", device)
    except ImportError:  # installed, but not for this NumPy
        return False
    return True


def compiled(tensor: torch.Tensor, operator: str | None = None) -> bool:
    """Whether kernels are compiled for a tensor's device and dtype, and allowed.

    ``torch.compile`` traces the references. An operator is named where it has kernels for some
    types of device alone.
    """
    if torch.compiler.is_compiling():
        return False
    device = tensor.device.type
    if operator is not None and device not in OPERATORS[operator][2]:
        return False
    return tensor.dtype in _DTYPES and _enabled.get() and _works(device)


def register(
    schema: str, family: str, function: str, devices: tuple[str, ...] = tuple(COMPILERS)
) -> None:
    """Make the kernels of an operator known to torch, one for each type of device.

    Parameters
    ----------
    schema : str
        Name, arguments and results, such as ``"name(Tensor x, int[] shape) -> Tensor"``.
    family, function : str
        Where the kernels stand, see :func:`kernels`.
    devices : tuple of str
        Types of device that have one.
    """
    name = schema.partition("(")[0]
    OPERATORS[name] = family, function, devices
    torch.library.define(f"openmm_nequiplr::{name}", schema[schema.index("(") :])
    for device in devices:
        run = functools.partial(_run, family, function, device)
        torch.library.impl(f"openmm_nequiplr::{name}", device)(run)


def _run(family: str, function: str, device: str, *values: Any) -> Any:
    return getattr(kernels(family, device), function)(*values)
