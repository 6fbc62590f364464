"""The operators of the convolution against their references: values, derivatives, limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.ops import convolution_operators, references, sort_edges

from .products import assert_close, product_of, tabulated_of, tabulated_reference

convolution_kernels = pytest.importorskip("openmm_nequiplr.ops.convolution_kernels")

PRODUCTS = {
    "one_irrep": ("4x0e", 1),
    "even": ("3x0e+3x1o", 1),
    "parity": ("2x0e+2x0o+2x1e+2x1o", 1),
    "l2": ("2x0e+2x1o+2x2e", 2),
    "like_irreps": ("2x0e+2x0e+2x1o", 1),
    "many_channels": ("33x0e+33x1o", 1),
}
EVERY = pytest.mark.parametrize("name", PRODUCTS)
SMALL = pytest.mark.parametrize("name", [name for name in PRODUCTS if name != "many_channels"])
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)]
)


@EVERY
@PRECISIONS
def test_equals_the_reference(name, dtype, tolerance):
    product, values, ends = product_of(*PRODUCTS[name], dtype)
    found, expected = product(*values, *ends), product.reference(*values, *ends)
    assert "_Convolution" in type(found.grad_fn).__name__
    assert_close([found], [expected], tolerance)
    slopes = [torch.autograd.grad(y.sin().sum(), values) for y in (found, expected)]
    assert_close(*slopes, 10 * tolerance)


@EVERY
@PRECISIONS
def test_tabulated_equals_the_reference(name, dtype, tolerance):
    product, values, ends, table = tabulated_of(*PRODUCTS[name], dtype)
    found = product.tabulated(*values, table, sort_edges(ends, 4))
    expected = tabulated_reference(product, *values, ends, table)
    assert_close([found], [expected], tolerance)
    slopes = [torch.autograd.grad(y.sin().sum(), values) for y in (found, expected)]
    assert_close(*slopes, 10 * tolerance)


@SMALL
def test_derivatives(name):
    product, values, ends = product_of(*PRODUCTS[name])
    assert torch.autograd.gradcheck(lambda *v: product(*v, *ends), values, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *v: product(*v, *ends), values, fast_mode=True)


@SMALL
def test_derivatives_of_the_tabulated_one_and_of_its_transpose(name):
    product, values, ends, table = tabulated_of(*PRODUCTS[name])
    edges = sort_edges(ends, 4)
    assert torch.autograd.gradcheck(
        lambda *v: product.tabulated(*v, table, edges), values, fast_mode=True
    )
    columns = values[0].shape[1]
    values[0] = torch.randn_like(product.tabulated(*values, table, edges)).requires_grad_()
    constants = *edges, *table, product.tables, product.mul, columns, True

    def transpose(*varied):
        return convolution_operators.tabulated_convolution(*varied, *constants)

    assert torch.autograd.gradcheck(transpose, values, fast_mode=True)


@pytest.mark.parametrize("tabulated", [False, True])
def test_more_derivatives_are_refused(tabulated):
    if tabulated:
        product, values, ends, table = tabulated_of(*PRODUCTS["even"])
        result = product.tabulated(*values, table, sort_edges(ends, 4))
    else:
        product, values, ends = product_of(*PRODUCTS["even"])
        result = product(*values, *ends)
    for _ in range(1 if tabulated else 2):
        slopes = torch.autograd.grad(result.square().sum(), values, create_graph=True)
        result = torch.cat([slope.flatten() for slope in slopes])
    with pytest.raises(RuntimeError, match=r"once in inference, twice in training.* any further"):
        torch.autograd.grad(result.square().sum(), values)


def test_references_can_be_asked_for():
    product, values, ends = product_of(*PRODUCTS["parity"])
    with references():
        result = product(*values, *ends).square().sum()
        for _ in range(3):
            slopes = torch.autograd.grad(result, values, create_graph=True)
            result = sum(slope.square().sum() for slope in slopes)
    assert result > 0


def test_atoms_without_edges_and_no_edges():
    product, (features, harmonics, weights), ends = product_of(*PRODUCTS["l2"])
    few = torch.nonzero(ends[0] != 2).flatten()
    found = product(features, harmonics[few], weights[few], *ends[:, few])
    assert not found[2].any()
    assert found[[0, 1, 3]].any(dim=1).all()
    none = product(features, harmonics[:0], weights[:0], *ends[:, :0])
    assert torch.equal(none, torch.zeros_like(found))
    assert torch.equal(product.reference(features, harmonics[:0], weights[:0], *ends[:, :0]), none)


def test_threads_share_the_work(monkeypatch):
    monkeypatch.setattr(convolution_kernels, "EDGES_PER_THREAD", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    sizes = {"atoms": 11, "edges": 40}
    product, values, ends = product_of(*PRODUCTS["l2"], **sizes)
    results = [
        (y, *torch.autograd.grad(y.sin().sum(), values))
        for y in (product(*values, *ends), product.reference(*values, *ends))
    ]
    product, values, ends, table = tabulated_of(*PRODUCTS["l2"], **sizes)
    found = product.tabulated(*values, table, sort_edges(ends, 11))
    results += [
        (y, *torch.autograd.grad(y.sin().sum(), values))
        for y in (found, tabulated_reference(product, *values, ends, table))
    ]
    assert_close(*results[:2], 1e-12)
    assert_close(*results[2:], 1e-12)


def test_sorted_edges():
    ends = torch.tensor([[2, 0, 2, 3], [0, 2, 3, 2]])
    edges = sort_edges(ends, 5)
    assert edges.order.tolist() == [[1, 0, 2, 3], [0, 1, 3, 2]]
    assert edges.start.tolist() == [[0, 1, 1, 3, 4, 4], [0, 1, 1, 3, 4, 4]]


def test_the_reference_can_be_scripted():
    product, values, ends = product_of(*PRODUCTS["parity"])
    scripted = torch.jit.script(product)
    assert "openmm_nequiplr::" not in str(scripted.inlined_graph)
    expected = product.reference(*values, *ends).detach()
    np.testing.assert_allclose(scripted(*values, *ends).detach(), expected, atol=1e-14)
