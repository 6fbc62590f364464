"""SiLU of values and of their derivatives by one variable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..derivatives import last_derivative
from .choice import compiled, register


def silu_along(values: Tensor) -> Tensor:
    """SiLU of z(r) and its derivative by r; the compiled kernel is differentiable once.

    Parameters
    ----------
    values : torch.Tensor, shape (2, ...)
        z and dz/dr.

    Returns
    -------
    torch.Tensor, shape (2, ...)
        z σ(z) and its derivative σ(z) (1 + z (1 − σ(z))) dz/dr.
    """
    return _SiluAlong.apply(values) if compiled(values) else silu_along_reference(values)


def silu_along_reference(values: Tensor) -> Tensor:
    """Reference of :func:`silu_along` in plain torch, differentiable to any order."""
    z, slope = values
    sigmoid = torch.sigmoid(z)
    value = z * sigmoid
    return torch.stack((value, (sigmoid + value * (1.0 - sigmoid)) * slope))


class _SiluAlong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        sigmoid = torch.sigmoid(values[0])
        ctx.save_for_backward(values, sigmoid)
        return torch.ops.openmm_nequiplr.silu_along(values, sigmoid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        inputs = *ctx.saved_tensors, gradient
        gradients = torch.ops.openmm_nequiplr.silu_along_gradient
        what = "the compiled activation of a radial network"
        return last_derivative(what, lambda: (gradients(*inputs),), inputs)[0]


register("silu_along(Tensor values, Tensor sigmoid) -> Tensor", "activation", "silu_along")
register(
    "silu_along_gradient(Tensor values, Tensor sigmoid, Tensor gradient) -> Tensor",
    "activation",
    "silu_along_gradient",
)
