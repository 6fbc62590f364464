"""The sum of messages that is trained against the plain path: values and two derivatives."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from openmm_nequiplr.nn import EdgeTensorProduct, fused_loops
from openmm_nequiplr.nn.fused import messages
from openmm_nequiplr.nn.fused.plan import ProductPlan

pytest.importorskip("numba")

PRODUCTS = {
    "one_irrep": ("4x0e", 1),
    "even": ("3x0e+3x1o", 1),
    "parity": ("2x0e+2x0o+2x1e+2x1o", 1),
    "l2": ("2x0e+2x1o+2x2e", 2),
}
MODELS = {
    "default": {},
    "no_parity": {"parity": False, "num_features": 3},
    "l2": {"l_max": 2, "num_features": 2, "num_layers_charge": 2},
    "shared": {"shared_features": True, "num_layers_charge": 2},
    "resnet": {"resnet": True, "num_layers": 3},
}


def inputs(irreps: str, l_max: int, atoms: int = 4, edges: int = 9):
    """A product, its plan, random inputs of it and a graph with edges in no order."""
    harmonics = o3.Irreps.spherical_harmonics(l_max)
    product = EdgeTensorProduct(o3.Irreps(irreps), harmonics, o3.Irreps(irreps)).double()
    generator = torch.Generator().manual_seed(1)
    shapes = (atoms, product.irreps_in.dim), (edges, harmonics.dim), (edges, product.weight_numel)
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    edge_index = torch.randint(0, atoms, (2, edges), generator=generator)
    plan = ProductPlan.of(product, torch.float64)
    return product, plan, [v.requires_grad_() for v in values], edge_index


def plain(product, features, harmonics, weights, edge_index):
    """The same sum by torch, the channels of like irreps together."""
    center, neighbor = edge_index
    each = product(features[neighbor], harmonics, weights)
    total = each.new_zeros(features.shape[0], each.shape[1]).index_add(0, center, each)
    parts = total.split([mul * ir.dim for mul, ir in product.irreps_out], dim=1)
    merged: dict[o3.Irrep, list[torch.Tensor]] = {}
    for part, (_, ir) in zip(parts, product.irreps_out, strict=True):
        merged.setdefault(ir, []).append(part.unflatten(1, (ir.dim, -1)))
    return torch.cat([torch.cat(p, dim=2).flatten(1) for p in merged.values()], dim=1)


@pytest.mark.parametrize("name", PRODUCTS)
def test_sum_equals_the_plain_product(name):
    product, plan, values, edge_index = inputs(*PRODUCTS[name])
    found = messages.sum_messages(*values, edge_index, plan)
    expected = plain(product, *values, edge_index)
    assert (found - expected).abs().max() <= 1e-13 * expected.abs().max()


@pytest.mark.parametrize("name", PRODUCTS)
def test_derivatives(name):
    _, plan, values, edge_index = inputs(*PRODUCTS[name])

    def total(*arrays):
        return messages.sum_messages(*arrays, edge_index, plan)

    assert torch.autograd.gradcheck(total, values)
    assert torch.autograd.gradgradcheck(total, values)


def test_a_third_derivative_is_refused():
    _, plan, values, edge_index = inputs(*PRODUCTS["even"])
    result = messages.sum_messages(*values, edge_index, plan).square().sum()
    for _ in range(2):
        slopes = torch.autograd.grad(result, values, create_graph=True)
        result = sum(slope.square().sum() for slope in slopes)
    with pytest.raises(RuntimeError, match="messages has two derivatives"):
        torch.autograd.grad(result, values)


def gradients(model, atoms):
    """Gradients of a loss of energies, forces and charges by all weights."""
    graph = model.build_graph(
        list(atoms.symbols), atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc.any()
    )
    model.train().zero_grad()
    output = model(graph, compute_forces=True)
    loss = output.energy.sum() ** 2 + output.forces.square().sum() + output.charges.square().sum()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(model, atoms, monkeypatch):
    used = []
    original = messages.sum_messages

    def counted(*arguments):
        used.append(1)
        return original(*arguments)

    monkeypatch.setattr("openmm_nequiplr.nn.fused.network.sum_messages", counted)
    found = gradients(model, atoms)
    layers = model.config.num_layers + model.config.num_layers_charge
    assert len(used) == layers
    with fused_loops(False):
        expected = gradients(model, atoms)
    assert len(used) == layers
    assert found.keys() == expected.keys()
    for name, one in found.items():
        largest = max(float(expected[name].abs().max()), 1e-6)
        assert (one - expected[name]).abs().max() <= 1e-9 * largest, name


@pytest.mark.parametrize("name", MODELS)
def test_training_gradients_equal_those_of_the_plain_path(small_model, crystal, monkeypatch, name):
    assert_same_gradients(small_model(**MODELS[name]), crystal, monkeypatch)


def test_threads_share_the_edges(small_model, molecule, monkeypatch):
    monkeypatch.setattr(messages, "EDGES_PER_THREAD", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert_same_gradients(small_model(l_max=2), molecule, monkeypatch)


def test_an_isolated_atom(small_model, molecule, monkeypatch):
    molecule.positions[-1] += 100.0
    assert_same_gradients(small_model(), molecule, monkeypatch)
