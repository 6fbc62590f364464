"""Hand-written derivatives that raise an error if they are differentiated again."""

# TorchScript compiles known_gradient and reads its annotations: no postponed ones here
from collections.abc import Callable, Sequence
from typing import Any

import torch


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, what: str, compute: Any, *inputs: Any) -> Any:
        ctx.what = what
        return compute()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(f"{ctx.what} cannot be differentiated any further")


def last_derivative(
    what: str,
    compute: Callable[[], tuple[torch.Tensor | None, ...]],
    inputs: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor | None, ...]:
    """Return ``compute()``; differentiating the result by the inputs raises an error.

    ``torch.autograd.function.once_differentiable`` would silently omit such derivatives from the
    results of ``torch.autograd.grad``.

    Parameters
    ----------
    what : str
        Start of the error message.
    compute : callable
        Called without arguments.
    inputs : sequence of torch.Tensor or None
        All (saved) tensors that enter.
    """
    return _Last.apply(what, compute, *inputs)


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, what: str, value: Any, count: int, *tensors: Any) -> Any:
        ctx.what, ctx.count = what, count
        ctx.save_for_backward(*tensors)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        slopes, inputs = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        needed = ctx.needs_input_grad[3 + ctx.count :]
        scaled = last_derivative(
            f"{ctx.what} has one derivative, and it",
            lambda: tuple(grad * s if n else None for s, n in zip(slopes, needed, strict=True)),
            (grad, *inputs),
        )
        return (None,) * (3 + ctx.count) + scaled


def known_gradient(
    what: str, value: torch.Tensor, inputs: list[torch.Tensor], slopes: list[torch.Tensor]
) -> torch.Tensor:
    """Attach given first derivatives by the inputs to a value; second ones raise an error.

    Parameters
    ----------
    what : str
        Start of the error message.
    value : torch.Tensor, scalar
    inputs, slopes : list of torch.Tensor
        Inputs, and the derivatives by them, of equal shapes.
    """
    if torch.jit.is_scripting():
        for i in range(len(inputs)):
            with torch.no_grad():
                still = 1.0 * inputs[i]  # freezing a graph drops detach()
            value = value + ((inputs[i] - still) * slopes[i]).sum()
        return value
    else:
        return _Known.apply(what, value, len(slopes), *slopes, *inputs)
