"""Buffers of a network that keep their precision when the network is cast."""

from collections.abc import Callable

import torch


class ExactBuffers(torch.nn.Module):
    """Module whose own buffers stay float64; those of its submodules are cast as usual."""

    def _apply(self, fn: Callable, recurse: bool = True) -> torch.nn.Module:
        """Move as torch does, but keep the dtype and the values of the buffers."""
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in exact.items():
            moved = self._buffers[name]
            if value is not None and moved is not None:
                self._buffers[name] = value.to(moved.device)
        return self
