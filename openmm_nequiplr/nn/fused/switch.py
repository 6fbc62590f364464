"""When the fast paths run: by themselves on the processor, never where they cannot."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import torch
from e3nn import o3

from ...jit import numba_available
from ..radial import RadialBasis
from .table import SHORTEST

if TYPE_CHECKING:
    from .network import FusedConvolutions

_enabled: ContextVar[bool] = ContextVar("fused", default=True)
_built: weakref.WeakKeyDictionary[Any, tuple[Any, Any]] = weakref.WeakKeyDictionary()


class Convolutions(Protocol):
    """What a stage's convolutions have."""

    training: bool
    embedding: o3.Linear
    layers: torch.nn.ModuleList
    radial_basis: RadialBasis
    _parameters: dict[str, torch.nn.Parameter | None]
    _modules: dict[str, torch.nn.Module | None]


@contextlib.contextmanager
def fused_loops(enabled: bool) -> Iterator[None]:
    """Allow or forbid the fast paths inside a ``with`` block, in this thread.

    That of inference is taken by itself on the processor when no parameter of a model in evaluation
    mode asks for a gradient, and can be differentiated once. Otherwise that of training is, which
    can be differentiated twice. Forbid both for more derivatives.

    Parameters
    ----------
    enabled : bool
    """
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def _parameters(module: Convolutions | torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    """All parameters, once for each place; ``Module.parameters`` takes a millisecond a step."""
    yield from (p for p in module._parameters.values() if p is not None)
    for child in module._modules.values():
        if child is not None:
            yield from _parameters(child)


def _applies(module: Convolutions, length: torch.Tensor) -> bool:
    if not (_enabled.get() and numba_available()):
        return False
    if length.device.type != "cpu" or length.dtype not in (torch.float32, torch.float64):
        return False
    return len(module.layers) > 0 and length.shape[0] > 0


def fused_convolutions(module: Convolutions, length: torch.Tensor) -> FusedConvolutions | None:
    """The fast twin of a stage's convolutions, or ``None`` where the plain path has to be taken.

    Fast twins are built on first use; those of inference again when a parameter has changed.

    Parameters
    ----------
    module : torch.nn.Module
        A stage's embedding, layers and radial basis.
    length : torch.Tensor, shape (E,), Å
    """
    if not _applies(module, length):
        return None
    parameters = list(_parameters(module))
    frozen = not module.training and not any(p.requires_grad for p in parameters)
    state = length.dtype, [(p.data_ptr(), p._version) for p in parameters] if frozen else None
    known, fast = _built.get(module, (None, None))
    if known != state:
        from .network import FusedConvolutions
        from .plan import UnsupportedError

        parts = module.embedding, module.layers, module.radial_basis
        try:
            fast = FusedConvolutions(*parts, length.dtype, frozen)
        except UnsupportedError:
            fast = None
        _built[module] = state, fast
    if fast is None or (frozen and not float(length.detach().min()) >= SHORTEST):  # nor for NaN
        return None
    return fast
