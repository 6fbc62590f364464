"""The tabulated radial network against the network itself."""

from __future__ import annotations

import copy

import pytest
import torch
from e3nn.nn import FullyConnectedNet

from openmm_nequiplr.nn import RadialBasis, table
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


def test_copies_share_a_table_and_changes_make_another(monkeypatch):
    monkeypatch.setattr(table, "_last", {})
    basis, network = radial()

    def made(*modules, dtype=torch.float32, norm=0.3):
        return build_table(*modules, norm, dtype).coefficients

    first = made(basis, network)
    for copies in ((basis, network), copy.deepcopy((basis, network))):
        assert made(*copies).data_ptr() == first.data_ptr()
    assert made(basis, network, norm=0.4).data_ptr() != first.data_ptr()
    other = radial(torch.tanh)
    for module, same in zip(other, (basis, network), strict=True):
        module.load_state_dict(same.state_dict())
    assert made(*other).data_ptr() != first.data_ptr()
    torch.testing.assert_close(made(basis, Doubled(network)), 2 * first)
    handle = network.register_forward_hook(lambda module, given, found: 2 * found)
    torch.testing.assert_close(made(basis, network), 2 * first)
    handle.remove()
    with torch.no_grad():
        network[0].weight[0, 0] += 1.0
    assert not torch.equal(made(basis, network), first)
    monkeypatch.setattr(table, "_CACHE_BYTES", first.nbytes)
    made(basis, network)
    assert len(table._last) == 1


class Doubled(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, values):
        return 2 * self.inner(values)
