"""Compiled loops of :mod:`.activation` for the CPU (numba)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..jit import compiled_loop
from ..threads import each_block, even_bounds

# Fewest values for which another thread pays.
_VALUES_PER_THREAD = 50_000

_compile = compiled_loop(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_compile
def forward(begin, end, values, sigmoid, out):
    """Write SiLU of the values ``begin`` to ``end`` and its derivative."""
    one = values.dtype.type(1.0)
    z, slope, out_z, out_slope = values[0], values[1], out[0], out[1]
    for n in range(begin, end):
        s = sigmoid[n]
        silu = z[n] * s
        out_z[n] = silu
        out_slope[n] = (s + silu * (one - s)) * slope[n]


@_compile
def backward(begin, end, values, sigmoid, gradient, out):
    """Write the gradients of the values ``begin`` to ``end`` and of their derivatives."""
    one = values.dtype.type(1.0)
    z, slope, out_z, out_slope = values[0], values[1], out[0], out[1]
    of_z, of_slope = gradient[0], gradient[1]
    for n in range(begin, end):
        s = sigmoid[n]
        silu, rest = z[n] * s, one - s
        first = s + silu * rest
        second = rest * (s + first - silu * s)
        out_z[n] = of_z[n] * first + of_slope[n] * slope[n] * second
        out_slope[n] = of_slope[n] * first


def _over_values(kernel: Any, sigmoid: Tensor, *pairs: Tensor) -> Tensor:
    """Run a kernel on flattened tensors; ``pairs`` have the shape (2, ...)."""
    out = torch.empty_like(pairs[0], memory_format=torch.contiguous_format)
    values, *rest, result = (t.contiguous().view(2, -1).numpy() for t in (*pairs, out))
    flat = sigmoid.contiguous().view(-1).numpy()
    bounds = even_bounds(flat.shape[0], _VALUES_PER_THREAD)
    each_block(bounds, lambda begin, end: kernel(begin, end, values, flat, *rest, result))
    return out


def silu_along(values: Tensor, sigmoid: Tensor) -> Tensor:
    """SiLU of values and its derivative."""
    return _over_values(forward, sigmoid, values)


def silu_along_gradient(values: Tensor, sigmoid: Tensor, gradient: Tensor) -> Tensor:
    """Gradients of values and derivatives from the gradients of the results."""
    return _over_values(backward, sigmoid, values, gradient)
