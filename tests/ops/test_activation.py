"""The activation of values with derivatives: the compiled loop against its reference."""

from __future__ import annotations

import pytest
import torch

from openmm_nequiplr.ops import activation, references, silu_along

activation_kernels = pytest.importorskip("openmm_nequiplr.ops.activation_kernels")


def inputs(dtype=torch.float64, count=7):
    generator = torch.Generator().manual_seed(0)
    values = 3.0 * torch.randn(2, count, 5, generator=generator, dtype=torch.float64)
    return values.to(dtype).requires_grad_()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_equals_the_reference(dtype, tolerance):
    values = inputs(dtype)
    found, expected = silu_along(values), activation.silu_along_reference(values)
    assert "SiluAlong" in type(found.grad_fn).__name__
    slopes = [torch.autograd.grad(y.sin().sum(), values)[0] for y in (found, expected)]
    for one, other in ((found, expected), slopes):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_the_second_row_is_the_derivative():
    """That of SiLU along a line, as torch differentiates it."""
    start, slope = inputs().detach()
    _, expected = torch.func.jvp(torch.nn.functional.silu, (start,), (slope,))
    found = silu_along(torch.stack((start, slope)))
    assert (found[1] - expected).abs().max() < 1e-14


def test_more_derivatives_are_refused_but_by_the_reference():
    def twice():
        values = inputs()
        (slope,) = torch.autograd.grad(silu_along(values).sum(), values, create_graph=True)
        return torch.autograd.grad(slope.sum(), values)

    with pytest.raises(RuntimeError, match="cannot be differentiated any further"):
        twice()
    with references():
        assert bool(torch.isfinite(twice()[0]).all())


def test_threads_share_the_work(monkeypatch):
    values = inputs(count=40)
    expected = silu_along(values)
    monkeypatch.setattr(activation_kernels, "_VALUES_PER_THREAD", 10)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(silu_along(values), expected)
    finally:
        torch.set_num_threads(before)
