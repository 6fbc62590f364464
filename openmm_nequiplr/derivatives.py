"""Derivatives worked out by hand that cannot be differentiated again, and say so."""

from __future__ import annotations

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
