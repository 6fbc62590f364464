"""Triton kernels of :mod:`.activation`."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_launch import launch

#: Number of values per program.
_BLOCK = 512


@triton.jit
def silu_forward(sigmoid, values, out, count, BLOCK: tl.constexpr):
    """Write SiLU of values z and its derivative to the two halves of ``out``."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < count
    s = tl.load(sigmoid + n, mask=live, other=0.0)
    silu = tl.load(values + n, mask=live, other=0.0) * s
    slope = tl.load(values + count + n, mask=live, other=0.0)
    tl.store(out + n, silu, mask=live)
    tl.store(out + count + n, (s + silu * (1.0 - s)) * slope, mask=live)


@triton.jit
def silu_backward(sigmoid, values, gradient, out, count, BLOCK: tl.constexpr):
    """Write the gradients of the values and of their derivatives."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < count
    s = tl.load(sigmoid + n, mask=live, other=0.0)
    silu = tl.load(values + n, mask=live, other=0.0) * s
    slope = tl.load(values + count + n, mask=live, other=0.0)
    of_value = tl.load(gradient + n, mask=live, other=0.0)
    of_slope = tl.load(gradient + count + n, mask=live, other=0.0)
    first = s + silu * (1.0 - s)
    second = (1.0 - s) * (s + first - silu * s)
    tl.store(out + n, of_value * first + of_slope * slope * second, mask=live)
    tl.store(out + count + n, of_slope * first, mask=live)


def _over_values(kernel: Any, sigmoid: Tensor, *pairs: Tensor) -> Tensor:
    """Run a kernel on all values; ``pairs`` have the shape (2, ...)."""
    out = torch.empty_like(pairs[0], memory_format=torch.contiguous_format)
    count = sigmoid.numel()
    arguments = [each.contiguous() for each in (sigmoid, *pairs)]
    launch(kernel, triton.cdiv(count, _BLOCK), *arguments, out, count, BLOCK=_BLOCK, warps=4)
    return out


def silu_along(values: Tensor, sigmoid: Tensor) -> Tensor:
    """SiLU of values and its derivative."""
    return _over_values(silu_forward, sigmoid, values)


def silu_along_gradient(values: Tensor, sigmoid: Tensor, gradient: Tensor) -> Tensor:
    """Gradients of values and derivatives from the gradients of the results."""
    return _over_values(silu_backward, sigmoid, values, gradient)
