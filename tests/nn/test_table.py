"""The tabulated radial network against the network itself."""

from __future__ import annotations

import pytest
import torch
from e3nn.nn import FullyConnectedNet

from openmm_nequiplr.nn import RadialBasis
from openmm_nequiplr.nn.table import SHORTEST, build_table, interpolate


def radial(activation=torch.nn.functional.silu, scale=1.0):
    basis = RadialBasis(4.0, 8, True, 6.0).double().requires_grad_(False)
    network = FullyConnectedNet([8, 32, 32, 12], activation).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.mul_(scale)
    return basis, network


@pytest.mark.parametrize(
    ("dtype", "of_values", "of_slopes"),
    [(torch.float64, 2e-14, 3e-13), (torch.float32, 1e-7, 5e-7)],
)
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_table_is_exact_to_round_off(dtype, of_values, of_slopes, scale):
    basis, network = radial(scale=scale)
    table = build_table(basis, network, 0.3, dtype)
    length = SHORTEST + (4.0 - SHORTEST) * torch.rand(5000, dtype=torch.float64)
    one = torch.ones_like(length)
    exact = torch.func.jvp(lambda r: 0.3 * network(basis(r)), (length,), (one,))
    found = torch.func.jvp(lambda r: interpolate(table, r), (length,), (one,))
    for a, b, limit in zip(found, exact, (of_values, of_slopes), strict=True):
        assert (a - b).abs().max() < limit * b.abs().max()


def test_no_table_of_a_network_with_kinks():
    assert build_table(*radial(torch.abs), 1.0, torch.float64) is None
