"""Where a kernel is chosen: by device, once for all operators of sums over pairs and meshes.

An operator ``name`` has a reference in plain torch, which TorchScript compiles into a graph that
runs without this package, and kernels that :func:`register` makes known to torch as
``torch.ops.openmm_nequiplr.name``. A kernel for CUDA is registered beside the one for the
processor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..jit import numba_available

_reference_only = [False]


def register(schema: str, kernel: Callable[..., Any], device: str = "cpu") -> None:
    """Make a kernel known to torch.

    Parameters
    ----------
    schema : str
        Name, arguments and results, such as ``"name(Tensor x, int[] shape) -> Tensor"``.
    kernel : callable
    device : str
        Type of the tensors that it takes.
    """
    name = f"openmm_nequiplr::{schema.partition('(')[0]}"
    torch.library.define(name, schema[schema.index("(") :])
    torch.library.impl(name, device)(kernel)


def has_kernel(tensor: torch.Tensor) -> bool:
    """Whether there are kernels for a tensor's device."""
    return tensor.device.type == "cpu" and numba_available() and not _reference_only[0]


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Leave all kernels aside, as where numba is not installed."""
    before, _reference_only[0] = _reference_only[0], True
    try:
        yield
    finally:
        _reference_only[0] = before
