"""Operators between atoms and mesh: kernels against the reference, and that against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.ops import compiled, mesh, mesh_kernels, references

DTYPES = {torch.float32: 2e-6, torch.float64: 1e-13}
SHAPES = [[9, 12, 30], [8, 8, 8], [20, 9, 10]]


@pytest.fixture
def place(rng):
    place = torch.tensor(rng.uniform(-40.0, 40.0, (50, 3)))
    place[0] = 7.0
    return place


def close(found, expected, dtype):
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=DTYPES[dtype] * size)


@pytest.mark.parametrize("order", [4, 6, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_equal_the_reference(rng, place, order, shape, dtype):
    charges, field = torch.tensor(rng.normal(size=50)), torch.tensor(rng.normal(size=shape))
    results = []
    for reference in (False, True):
        with references() if reference else torch.no_grad():
            assert compiled(place) is not reference
            state = mesh.stencil(place, shape, order, dtype)
            results.append(
                (
                    mesh.spread(state, charges, shape),
                    mesh.gather(state, field.to(dtype)),
                    mesh.gather_gradient(state, field.to(dtype)),
                )
            )
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        close(found, expected, dtype)
    assert results[0][0].dtype == dtype


@pytest.mark.parametrize("order", [4, 8])
def test_gradients_are_those_of_the_gathered_values(rng, place, order):
    shape, field = [9, 12, 30], torch.tensor(rng.normal(size=(9, 12, 30)))
    moving = place.clone().requires_grad_()
    with references():
        values = mesh.gather(mesh.stencil(moving, shape, order, torch.float64), field)
        (slopes,) = torch.autograd.grad(values.sum(), moving)
    found = mesh.gather_gradient(mesh.stencil(place, shape, order, torch.float64), field)
    torch.testing.assert_close(found, torch.cat((values.detach().unsqueeze(1), slopes), dim=1))


def test_spreading_is_the_transpose_of_gathering(rng, place):
    shape = [9, 12, 30]
    charges, field = torch.tensor(rng.normal(size=50)), torch.tensor(rng.normal(size=shape))
    state = mesh.stencil(place, shape, 6, torch.float64)
    one = (mesh.spread(state, charges, shape) * field).sum()
    torch.testing.assert_close(one, charges @ mesh.gather(state, field))
    assert float(mesh.spread(state, charges, shape).sum()) == pytest.approx(float(charges.sum()))


@pytest.mark.parametrize("order", [4, 6, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_stencils_are_those_of_the_recursion(place, order, dtype):
    shape = np.array([9, 12, 30])
    index, weight, slope = mesh.stencil(place, shape.tolist(), order, dtype)
    floor = torch.floor(place)
    expected = mesh.spline_weights(place - floor, order)
    tolerance = 20 * torch.finfo(dtype).eps
    for found, wanted in zip((weight, slope), expected, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance)
    points = (floor.numpy()[:, :, None] + np.arange(order)) % shape[:, None]
    np.testing.assert_array_equal(index.numpy(), points)


def test_threads_change_nothing_but_rounding(rng, place, monkeypatch):
    monkeypatch.setattr(mesh_kernels, "_ATOMS_PER_THREAD", 3)
    monkeypatch.setattr(mesh_kernels, "_POINTS_PER_THREAD", 100)
    shape, charges = [9, 12, 30], torch.tensor(rng.normal(size=50))
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            state = mesh.stencil(place, shape, 6, torch.float64)
            density = mesh.spread(state, charges, shape)
            results.append((density, mesh.gather(state, density)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
