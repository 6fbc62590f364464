"""Readout of one scalar per atom from its features."""

# TorchScript compiles this module and reads annotations at run time: no postponed ones here.
import torch

from .dense import Linear
from .e3 import o3


class ScalarReadout(torch.nn.Module):
    """Two linear maps, from features to hidden scalars to one scalar."""

    def __init__(self, irreps_in: o3.Irreps, num_hidden: int) -> None:
        super().__init__()
        hidden = o3.Irreps([(num_hidden, (0, 1))])
        self.hidden = Linear(irreps_in, hidden)
        self.scalar = Linear(hidden, o3.Irreps("1x0e"))

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map features of ``irreps_in`` to scalars of shape (N,)."""
        return self.scalar(self.hidden(features))[0].flatten()


def saturate(values: torch.Tensor, bound: float) -> torch.Tensor:
    """Limit values to ±bound by bound · tanh(values/bound); a bound of 0 leaves them unchanged."""
    if bound == 0.0:
        return values
    return bound * torch.tanh(values / bound)
