"""Radial weights to first order in the length against the differentiated network."""

from __future__ import annotations

import pytest
import torch

from openmm_nequiplr.nn import RadialBasis
from openmm_nequiplr.nn.e3 import FullyConnectedNet
from openmm_nequiplr.nn.radial import linearized_weights


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_value_derivative_and_their_gradients(hidden):
    """Also at and beyond the cutoff, where all of them vanish."""
    torch.manual_seed(0)
    basis = RadialBasis(3.0, 4, True, 6.0).double()
    network = FullyConnectedNet([4, *hidden, 7], torch.nn.functional.silu).double()
    length = torch.tensor([0.7, 1.3, 2.9, 3.0, 3.2], dtype=torch.float64, requires_grad=True)
    parameters = [*basis.parameters(), *network.parameters()]
    seed = torch.linspace(-1.0, 1.0, 35, dtype=torch.float64).view(5, 7)
    found = []
    for weights in (
        linearized_weights(network, basis.along(length), length),
        network(basis(length)),
    ):
        (slope,) = torch.autograd.grad((weights * seed).sum(), length, create_graph=True)
        loss = weights.square().sum() + slope.square().sum()
        found.append([weights, slope, *torch.autograd.grad(loss, parameters)])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()
