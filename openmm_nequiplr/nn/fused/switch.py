"""When the fast path runs: by itself in inference on the processor, never where it cannot."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch

from .table import SHORTEST

_enabled: ContextVar[bool] = ContextVar("fused", default=True)
_NUMBA = importlib.util.find_spec("numba") is not None
_built: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, Any]] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def fused_inference(enabled: bool) -> Iterator[None]:
    """Allow or forbid the fast path inside a ``with`` block (this thread only)."""
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def _applies(module: torch.nn.Module, length: torch.Tensor) -> bool:
    if not (_NUMBA and _enabled.get()) or module.training or os.environ.get("NEQUIPLR_PLAIN"):
        return False
    if length.device.type != "cpu" or length.dtype not in (torch.float32, torch.float64):
        return False
    if len(module.layers) == 0 or length.shape[0] == 0:
        return False
    return not any(p.requires_grad for p in module.parameters())


def fused_convolutions(module: torch.nn.Module, length: torch.Tensor):
    """The fast twin of a stage's convolutions, or ``None`` where the plain path has to be taken.

    Fast twins are built on first use and again when a parameter has changed.

    Parameters
    ----------
    module : torch.nn.Module
        With ``embedding``, ``layers`` and ``radial_basis``.
    length : torch.Tensor, shape (E,), Å
    """
    if not _applies(module, length):
        return None
    state = (length.dtype, [(p.data_ptr(), p._version) for p in module.parameters()])
    known, fast = _built.get(module, (None, None))
    if known != state:
        from .network import FusedConvolutions
        from .plan import UnsupportedError

        try:
            fast = FusedConvolutions(
                module.embedding, module.layers, module.radial_basis, length.dtype
            )
        except UnsupportedError:
            fast = None
        _built[module] = state, fast
    if fast is not None and float(length.detach().min()) < SHORTEST:
        return None
    return fast
