"""Triton kernels, interpreted on the CPU, against the references; and compiled for GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from openmm_nequiplr.ops import choice, mesh, pairs, references, sort_edges
from openmm_nequiplr.ops.activation import silu_along, silu_along_reference

from .products import assert_close, product_of, tabulated_of, tabulated_reference

DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)]
)
# no edges, one atom with edges to its own images, and atoms without edges
SIZES = [(3, 0), (1, 2), (3, 5)]


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Operators take the functions for CUDA on the CPU, where Triton interprets the kernels."""
    known = choice.kernels
    choice._works.cache_clear()
    monkeypatch.setattr(choice, "kernels", lambda family, device: known(family, "cuda"))
    yield
    choice._works.cache_clear()


@pytest.mark.parametrize(("atoms", "edges"), SIZES)
@pytest.mark.parametrize(("irreps", "l_max"), [("3x0e+3x1o", 1), ("2x0e+2x1o+2x2e", 2)])
@DTYPES
def test_tabulated_convolution(irreps, l_max, dtype, tolerance, atoms, edges):
    product, inputs, ends, table = tabulated_of(irreps, l_max, dtype, atoms=atoms, edges=edges)
    found = product.tabulated(*inputs, table, sort_edges(ends, atoms))
    expected = tabulated_reference(product, *inputs, ends, table)
    slopes = [torch.autograd.grad(y.sin().sum(), inputs) for y in (found, expected)]
    assert_close([found], [expected], tolerance)
    assert_close(*slopes, 2 * tolerance)


@pytest.mark.parametrize(("atoms", "edges"), SIZES)
@DTYPES
def test_convolution_and_two_derivatives(dtype, tolerance, atoms, edges):
    product, inputs, ends = product_of("3x0e+3x1o", 1, dtype, atoms, edges)
    results = []
    for function in (product, product.reference):
        value = function(*inputs, *ends)
        first = torch.autograd.grad(value.sin().sum(), inputs, create_graph=True)
        energy = sum(slope.square().sum() for slope in first)
        results.append([value, *first, *torch.autograd.grad(energy, inputs)])
    assert "_Convolution" in type(product(*inputs, *ends).grad_fn).__name__
    assert_close(*results, 10 * tolerance)


def test_more_channels_than_threads():
    product, inputs, ends, table = tabulated_of("33x0e", 0, atoms=2, edges=3)
    found = product.tabulated(*inputs, table, sort_edges(ends, 2))
    assert_close([found], [tabulated_reference(product, *inputs, ends, table)], 1e-12)


def test_too_short_edges_are_no_number():
    product, inputs, ends, table = tabulated_of("2x0e", 0, torch.float32, atoms=2, edges=3)
    with torch.no_grad():
        inputs[2][1] = 0.2
    ends[0] = torch.tensor([0, 1, 0])
    found = product.tabulated(*inputs, table, sort_edges(ends, 2))
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_edges_are_sorted_as_on_the_cpu(monkeypatch):
    ends = torch.tensor([[2, 0, 2, 3], [0, 2, 3, 2]])
    edges = sort_edges(ends, 5)
    assert edges.order.tolist() == [[1, 0, 2, 3], [0, 1, 3, 2]]
    assert edges.start.tolist() == [[0, 1, 1, 3, 4, 4], [0, 1, 1, 3, 4, 4]]


@pytest.mark.parametrize("shape", [(2, 0), (2, 3, 200)])
@DTYPES
def test_activation(shape, dtype, tolerance):
    values, results = torch.randn(shape, dtype=dtype, requires_grad=True), []
    for function in (silu_along, silu_along_reference):
        value = function(values)
        results.append([value, *torch.autograd.grad(value.sin().sum(), values)])
    assert "_SiluAlong" in type(silu_along(values).grad_fn).__name__
    assert_close(*results, tolerance)


@pytest.mark.parametrize("order", [6, 8])
@pytest.mark.parametrize("count", [0, 1, 5])
@DTYPES
def test_mesh(rng, order, count, dtype, tolerance):
    shape = [9, 12, 15]
    place = torch.tensor(rng.uniform(-40.0, 40.0, (count, 3)))
    place[:1] = 7.0
    charges, field = torch.tensor(rng.normal(size=count)), torch.tensor(rng.normal(size=shape))
    field = field.to(dtype)

    def results():
        state = mesh.stencil(place, shape, order, dtype)
        gathered = mesh.gather(state, field), mesh.gather_gradient(state, field)
        return mesh.spread(state, charges, shape), *gathered

    found = results()
    with references():
        assert_close(found, results(), tolerance)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_atoms_that_are_nowhere_stay_on_the_mesh():
    """A recorded step learns only afterwards that a position was not finite."""
    shape, far = [9, 12, 16], [torch.nan, torch.inf, -torch.inf, 1e300, -1e300]
    place = torch.tensor(far).double().unsqueeze(1).expand(-1, 3).contiguous()
    index = mesh.stencil(place, shape, 6, torch.float64)[0]
    assert index.min() >= 0
    assert (index < torch.tensor(shape).unsqueeze(1)).all()


@pytest.mark.parametrize(("count", "number"), [(1, 3), (5, 200), (4, 0)])
@DTYPES
def test_pairs(rng, count, number, dtype, tolerance):
    lists = torch.tensor(rng.integers(0, count, (2, number)))
    lists[0] = lists[0].sort().values
    positions, images = torch.tensor(rng.uniform(0, 9, (count, 3))), torch.rand(5, 3).double() + 2
    image, kind = (torch.tensor(rng.integers(0, most, number)).int() for most in (5, 2))
    charges = torch.tensor(rng.normal(size=(2, count)))
    gammas = torch.tensor([0.8, 1.3]).double()

    def results():
        rows = pairs.pair_rows(*lists, count)
        widths = gammas, kind, 2.4, 9.0, 14.4, dtype
        terms = pairs.pair_terms(rows, positions, images, image, *widths)
        sums = pairs.pair_gradient(rows, terms, positions, images, image, *charges, True)
        own = pairs.pair_values(rows, terms)
        return *own, pairs.pair_product(rows, terms, charges[0]), *sums

    found = results()
    with references():
        expected = results()
    if count == 1:  # forces of an atom on its own images cancel
        assert float(found[4].abs().max()) < 1e-6
        found, expected = [*found[:4], found[5]], [*expected[:4], expected[5]]
    assert_close(found, expected, tolerance)


def test_kernels_compile_without_spills(capsys):
    """For GPUs that need not be there; registers are printed."""
    script = Path(__file__).with_name("compile_triton.py")
    environment = {**os.environ, "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", script], capture_output=True, text=True, env=environment
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    with capsys.disabled():
        print()
        for name, numbers in found.items():
            print(f"  {name}: {numbers['registers']} registers, {numbers['spilled']} bytes spilled")
    assert len(found) == 2 * (6 + 3 + 3 + 9 + 9)
    assert all(numbers["spilled"] == 0 for numbers in found.values())
    assert max(numbers["registers"] for numbers in found.values()) <= 128
