"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage(nn.Module):
    """Running average of the parameters of a model, kept in buffers.

    The decay rises with the number of updates n as min(decay, (1 + n) / (10 + n)), so that the
    random initial weights are soon forgotten. Being buffers, the averages follow the module to
    its device and into its checkpoints.

    Parameters
    ----------
    model : torch.nn.Module
        The averages start as copies of its parameters.
    decay : float
        In [0, 1); 0 keeps no average: the weights themselves are used.
    """

    num_updates: torch.Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self._names = []
        if decay > 0:
            for index, parameter in enumerate(model.parameters()):
                self._names.append(f"average_{index}")
                self.register_buffer(self._names[-1], parameter.detach().clone())

    def _averages(self) -> list[torch.Tensor]:
        return [getattr(self, name) for name in self._names]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the present weights of `model`, after an optimiser step."""
        self.num_updates += 1
        if self.decay > 0:
            n = int(self.num_updates)
            weight = 1.0 - min(self.decay, (1.0 + n) / (10.0 + n))
            weights = [p.detach() for p in model.parameters()]
            torch._foreach_lerp_(self._averages(), weights, weight)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange weights and averages; a second call restores both to the bit."""
        for average, parameter in zip(
            self._averages(), model.parameters() if self.decay > 0 else (), strict=True
        ):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within this context, `model` has the averaged weights."""
        self.swap(model)
        try:
            yield
        finally:
            self.swap(model)
