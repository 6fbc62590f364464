"""Derivatives worked out by hand that cannot be differentiated again, and say so."""

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
    """Values of ``compute()`` whose derivatives by the inputs are an error.

    ``torch.autograd.function.once_differentiable`` leaves such derivatives out of what
    ``torch.autograd.grad`` returns, without a word.

    Parameters
    ----------
    what : str
        Begins the message of the error.
    compute : callable
        Without arguments; what it returns comes back.
    inputs : sequence of torch.Tensor or None
        All tensors that enter, as they were saved.
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
    """A value that has given derivatives by its inputs, and none beyond.

    Parameters
    ----------
    what : str
        Begins the message of the error that a further derivative is.
    value : torch.Tensor, scalar
    inputs, slopes : list of torch.Tensor, of the same shapes
    """
    if torch.jit.is_scripting():
        for i in range(len(inputs)):
            with torch.no_grad():
                still = 1.0 * inputs[i]  # freezing a graph drops detach()
            value = value + ((inputs[i] - still) * slopes[i]).sum()
        return value
    else:
        return _Known.apply(what, value, len(slopes), *slopes, *inputs)
