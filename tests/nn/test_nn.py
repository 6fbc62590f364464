"""Network blocks against e3nn, and the radial functions against what they promise."""

from __future__ import annotations

import contextlib
import math

import e3nn.nn
import pytest
import torch
from e3nn import o3

from openmm_nequiplr.nn import (
    BesselBasis,
    ConvNetLayer,
    Edges,
    EdgeTensorProduct,
    Gate,
    Linear,
    PolynomialCutoff,
    SelfConnection,
    channels,
    charge_encoding,
    join_features,
    shapes,
    split_features,
)
from openmm_nequiplr.nn.convolution import ACTIVATIONS

IRREPS = [
    ("8x0e", "0e + 1o", "8x0e + 8x1o"),
    ("4x0e + 4x0o + 4x1e + 4x1o", "0e + 1o + 2e", "4x0e + 4x0o + 4x1e + 4x1o + 4x2e + 4x2o"),
    ("3x0e + 5x1e + 2x2e", "0e + 1e + 2e", "1x0e + 1x1e + 1x2e"),
]


@contextlib.contextmanager
def e3nn_in_double():
    """e3nn takes the precision of its constants from torch's default dtype."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def columns(irreps: o3.Irreps) -> torch.Tensor:
    """Where the columns of features in e3nn's order are in channel-last ones."""
    found = [
        entry.first + c * entry.total + entry.offset + u
        for entry in channels(irreps)
        for u in range(entry.mul)
        for c in range(entry.dim)
    ]
    return torch.tensor(found)


def to_channel_last(features: torch.Tensor, irreps: o3.Irreps) -> torch.Tensor:
    return features[:, columns(irreps).argsort()]


def reference_product(product: EdgeTensorProduct) -> o3.TensorProduct:
    """e3nn's own tensor product with the same paths, its coefficients in double precision."""
    instructions = [(block, edge, place, "uvu", True) for block, edge, place in product.paths]
    with e3nn_in_double():
        return o3.TensorProduct(
            product.irreps_in,
            product.irreps_edge,
            product.irreps_out,
            instructions,
            shared_weights=False,
            internal_weights=False,
        )


@pytest.mark.parametrize(("irreps_in", "irreps_edge", "kept"), IRREPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_edge_product_equals_e3nn(irreps_in, irreps_edge, kept, dtype):
    """Every edge has a centre of its own."""
    product = EdgeTensorProduct(o3.Irreps(irreps_in), o3.Irreps(irreps_edge), o3.Irreps(kept))
    product = product.to(dtype)
    reference = reference_product(product)
    assert reference.weight_numel == product.weight_numel
    x = torch.randn(11, product.irreps_in.dim, dtype=torch.float64)
    y = torch.randn(11, product.irreps_edge.dim, dtype=torch.float64)
    w = torch.randn(11, product.weight_numel, dtype=torch.float64)
    each = torch.arange(11)
    arrays = [a.to(dtype) for a in (to_channel_last(x, product.irreps_in), y, w)]
    tolerance = 1e-13 if dtype == torch.float64 else 2e-6
    expected = reference(x, y, w)
    for function in (product, product.reference):
        result = function(*arrays, each, each)[:, columns(product.irreps_out)]
        assert (result - expected).norm() / expected.norm() < tolerance


def test_edge_product_keeps_full_precision_through_a_cast():
    product = EdgeTensorProduct(*(o3.Irreps(i) for i in IRREPS[1]))
    exact = product.coupling.clone()
    assert torch.equal(product.float().double().coupling, exact)


LINEAR = [("8x0e", "3x0e+2x1o"), ("2x0e+3x0e+4x1o", "5x0e+3x1o+2x0e"), ("2x1o", "2x0e+2x1o")]


@pytest.mark.parametrize(("irreps_in", "irreps_out"), LINEAR)
def test_dense_maps_equal_those_of_e3nn(irreps_in, irreps_out):
    """Weights and states of e3nn's modules fit in."""
    irreps_in, irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
    x = torch.randn(7, irreps_in.dim, dtype=torch.float64)
    attributes = torch.randn(7, 3, dtype=torch.float64)
    with e3nn_in_double():
        linear = o3.Linear(irreps_in, irreps_out)
        product = o3.FullyConnectedTensorProduct(irreps_in, "3x0e", irreps_out)
    own, connection = Linear(irreps_in, irreps_out), SelfConnection(irreps_in, 3, irreps_out)
    for ours, theirs in ((own, linear), (connection, product)):
        ours.double().load_state_dict(theirs.state_dict())
    features = split_features(to_channel_last(x, irreps_in), shapes(irreps_in))
    mixed, expected = own(features), linear(x)
    connected = connection(features, attributes, mixed)
    for found, other in ((mixed, expected), (connected, expected + product(x, attributes))):
        found = join_features(found)[:, columns(irreps_out)]
        torch.testing.assert_close(found, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("odd", ["tanh", "abs"])
def test_gate_equals_that_of_e3nn(odd):
    scalars, gates, gated = (o3.Irreps(i) for i in ("3x0e+2x0o", "2x0e+4x0e", "2x1o+4x1e"))
    acts = [ACTIVATIONS["silu"], ACTIVATIONS[odd]], [ACTIVATIONS["ssp"]] * 2
    own = Gate(scalars, acts[0], gates, acts[1], gated)
    theirs = e3nn.nn.Gate(scalars, acts[0], gates, acts[1], gated)
    assert own.irreps_in == theirs.irreps_in
    assert own.irreps_out == theirs.irreps_out
    x = torch.randn(7, own.irreps_in.dim, dtype=torch.float64)
    features = split_features(to_channel_last(x, own.irreps_in), shapes(own.irreps_in))
    found = join_features(own(features))[:, columns(own.irreps_out)]
    torch.testing.assert_close(found, theirs(x), rtol=1e-13, atol=1e-13)


def test_convolution_is_equivariant():
    irreps = o3.Irreps("4x0e + 4x1o + 4x2e")
    edge = o3.Irreps.spherical_harmonics(2)
    layer = ConvNetLayer(
        irreps,
        o3.Irreps("4x0e + 4x0o + 4x1o + 4x1e + 4x2e + 4x2o"),
        edge,
        3,
        resnet=False,
        nonlinearity_scalars=("silu", "tanh"),
        nonlinearity_gates=("silu", "tanh"),
        num_radial=5,
        invariant_layers=1,
        invariant_neurons=8,
        avg_num_neighbors=4.0,
        use_sc=True,
    ).double()
    index = torch.randint(0, 6, (2, 20))
    vectors = torch.randn(20, 3, dtype=torch.float64)
    radial = torch.randn(20, 5, dtype=torch.float64)
    features = torch.randn(6, irreps.dim, dtype=torch.float64)
    attributes = torch.randn(6, 3, dtype=torch.float64)

    def run(x, v):
        harmonics = o3.spherical_harmonics(edge, v, True, normalization="component")
        edges = Edges(index, v.norm(dim=1), harmonics, radial)
        last = split_features(to_channel_last(x, irreps), shapes(irreps))
        return join_features(layer(last, attributes, edges))[:, columns(layer.irreps_out)]

    for matrix in (o3.rand_matrix(dtype=torch.float64), -torch.eye(3, dtype=torch.float64)):
        with e3nn_in_double():
            before, after = irreps.D_from_matrix(matrix), layer.irreps_out.D_from_matrix(matrix)
        moved = run(features @ before.T, vectors @ matrix.T)
        expected = run(features, vectors) @ after.T
        torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-10)


def test_bessel_basis_values():
    basis = BesselBasis(4.0, 3).double()
    r = torch.tensor([0.5, 1.7, 3.9], dtype=torch.float64)
    for n in range(3):
        expected = [0.5 * math.sin((n + 1) * math.pi * x / 4.0) / x for x in r.tolist()]
        assert basis(r)[:, n].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("p", [2.0, 6.0])
def test_cutoff_is_smooth_and_vanishes(p):
    cutoff = PolynomialCutoff(3.0, p)
    r = torch.tensor([1e-3, 3.0 - 1e-5, 3.0, 3.5], dtype=torch.float64, requires_grad=True)
    value = cutoff(r)
    assert value[0].item() == pytest.approx(1.0, abs=1e-5)
    assert value[1:].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-13)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    assert slope[1].item() == pytest.approx(0.0, abs=1e-8)
    assert curvature[1].item() == pytest.approx(0.0, abs=1e-3)


def test_charge_encoding():
    """Centres at linspace(−1, 1, 5), width 2/5."""
    q = torch.tensor([0.5, -1.0], dtype=torch.float64)
    encoded = charge_encoding(q, -1.0, 1.0, 5)
    centers = (-1.0, -0.5, 0.0, 0.5, 1.0)
    for row, value in enumerate(q.tolist()):
        expected = [math.exp(-(((value - c) / 0.4) ** 2)) for c in centers]
        assert encoded[row].tolist() == pytest.approx(expected)
