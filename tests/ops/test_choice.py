"""Which kernel is chosen, and what is left without numba."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from openmm_nequiplr.ops import choice, compiled, references

WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import torch
from e3nn import o3
from openmm_nequiplr.nn import EdgeTensorProduct

irreps = o3.Irreps("4x0e+4x1o")
product = EdgeTensorProduct(irreps, o3.Irreps.spherical_harmonics(1), irreps).double()
generator = torch.Generator().manual_seed(3)
shapes = (5, irreps.dim), (9, 4), (9, product.weight_numel)
values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
ends = torch.randint(0, 5, (2, 9), generator=generator)
features = values[0].requires_grad_()
energy = product(features, *values[1:], *ends).sin().sum()
(slope,) = torch.autograd.grad(energy, features)
print(repr(float(energy.detach())), repr(float(slope.sum())), "numba.core" in sys.modules)
"""


def test_by_device_and_dtype():
    pytest.importorskip("numba")
    numbers = torch.zeros(3)
    assert compiled(numbers)
    assert compiled(numbers.double())
    assert not compiled(numbers.half())
    assert not compiled(numbers.to("meta"))
    with references():
        assert not compiled(numbers)
    assert compiled(numbers)


def test_none_with_a_numba_that_does_not_load(monkeypatch):
    for cached in (choice._works, choice.kernels):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "openmm_nequiplr.ops.convolution_kernels", raising=False)
    monkeypatch.delattr("openmm_nequiplr.ops.convolution_kernels", raising=False)
    try:
        assert not compiled(torch.zeros(3))
    finally:
        choice._works.cache_clear()


def test_a_convolution_works_without_numba():
    pytest.importorskip("numba")

    def run(code: str) -> tuple[list[float], bool]:
        process = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
        )
        *numbers, loaded = process.stdout.split()
        return [float(number) for number in numbers], loaded == "True"

    plain, loaded = run(WITHOUT_NUMBA)
    assert not loaded
    fast, loaded = run(WITHOUT_NUMBA.replace('sys.modules["numba"] = None', ""))
    assert loaded
    assert plain == pytest.approx(fast, rel=1e-12)


def test_torch_compile_traces_the_references(make_model):
    stage = make_model().electronegativity_stage
    types, ends = torch.arange(3), torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2]])
    inputs = types, ends, torch.full((4,), 2.0).double(), torch.rand(4, 4).double()
    try:
        traced = torch.compile(stage, fullgraph=True, backend="eager")(*inputs)
    finally:
        torch._dynamo.reset()
    for one, other in zip(traced, stage(*inputs), strict=True):
        torch.testing.assert_close(one, other)
