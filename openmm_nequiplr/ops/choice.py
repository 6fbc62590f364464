"""Choice between the compiled kernel of an operator and its plain torch reference.

A compiled kernel runs if there is one for the device and dtype. CPU kernels are compiled by numba
(modules ``*_kernels``), CUDA kernels by Triton (modules ``*_triton``).

TorchScript compiles the plain torch references, so that its graphs run without this package.
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

from .. import threads as _threads  # noqa: F401  (must be imported before a process forks)

#: Compiler of the kernels for each device type, and suffix of their modules.
COMPILERS = {"cpu": ("numba", "kernels"), "cuda": ("triton", "triton")}
#: Family and function of each operator's kernels, and the device types that have them.
OPERATORS: dict[str, tuple[str, str, tuple[str, ...]]] = {}
_DTYPES = (torch.float32, torch.float64, torch.int32, torch.int64)
_enabled: ContextVar[bool] = ContextVar("compiled", default=True)


@contextlib.contextmanager
def references() -> Iterator[None]:
    """Context manager that runs the plain torch references in this thread.

    References are differentiable to any order. Compiled kernels are differentiable once in
    inference and twice in training.
    """
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


@functools.cache
def kernels(family: str, device: str) -> Any:
    """Module with the kernels of a family; their compiler is imported on first use."""
    return importlib.import_module(f".{family}_{COMPILERS[device][1]}", __package__)


@functools.cache
def _works(device: str) -> bool:
    """Whether the compiler for a device type is installed and can be imported."""
    if device not in COMPILERS or importlib.util.find_spec(COMPILERS[device][0]) is None:
        return False
    try:
        kernels("convolution", device)
    except ImportError:  # installed, but incompatible with this NumPy
        return False
    return True


def compiled(tensor: torch.Tensor, operator: str | None = None) -> bool:
    """Whether compiled kernels exist for a tensor's device and dtype, and are enabled.

    ``torch.compile`` traces the references. ``operator`` is needed only for an operator that lacks
    kernels on some device types.
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
    """Register an operator with torch, with a kernel for each device type.

    Parameters
    ----------
    schema : str
        Name, arguments and results, such as ``"name(Tensor x, int[] shape) -> Tensor"``.
    family, function : str
        Module of the kernels (:func:`kernels`) and name of the function in it.
    devices : tuple of str
        Device types that have a kernel.
    """
    name = schema.partition("(")[0]
    OPERATORS[name] = family, function, devices
    torch.library.define(f"openmm_nequiplr::{name}", schema[schema.index("(") :])
    for device in devices:
        run = functools.partial(_run, family, function, device)
        torch.library.impl(f"openmm_nequiplr::{name}", device)(run)


def _run(family: str, function: str, device: str, *values: Any) -> Any:
    return getattr(kernels(family, device), function)(*values)
