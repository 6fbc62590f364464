"""Calls of the functions behind the CUDA operators that launch every kernel once.

``compile_triton.py`` compiles what they launch.
"""

from __future__ import annotations

import functools

import torch
from e3nn import o3

from openmm_nequiplr.nn import EdgeTensorProduct
from openmm_nequiplr.ops import (
    activation_triton,
    convolution_triton,
    mesh_triton,
    pair_triton,
)

MODULES = activation_triton, convolution_triton, mesh_triton, pair_triton


def convolve(irreps: str, l_max: int, dtype: torch.dtype, given: bool) -> None:
    """Tabulated convolutions, and those with given weights."""
    irreps, harmonics = o3.Irreps(irreps), o3.Irreps.spherical_harmonics(l_max)
    product = EdgeTensorProduct(irreps, harmonics, irreps)
    x, h = torch.zeros(2, irreps.dim, dtype=dtype), torch.zeros(3, harmonics.dim, dtype=dtype)
    w = torch.zeros(3, product.weight_numel, dtype=dtype)
    y = torch.zeros(2, product.irreps_out.dim, dtype=dtype)
    ends, rest = torch.tensor([[0, 1, 1], [1, 0, 0]]), (product.tables, product.mul)
    if given:
        convolution_triton.convolution(x, h, w, *ends, *rest, y.shape[1])
        convolution_triton.convolution_gradients(x, h, w, *ends, y, *rest)
    edges = ends, *convolution_triton.sort_edges(ends, 2)
    table = torch.zeros(7, 6 * product.weight_numel, dtype=dtype), 0.05, 0.1
    inputs = h, w[:, 0].contiguous(), *edges, *table, *rest
    convolution_triton.tabulated_convolution(x, *inputs, y.shape[1], False)
    convolution_triton.tabulated_convolution(y, *inputs, x.shape[1], True)
    convolution_triton.tabulated_convolution_gradients(x, y, *inputs)


def sums(dtype: torch.dtype) -> None:
    """Mesh, pairs and activations."""
    state = mesh_triton.stencil(torch.zeros(2, 3).double(), [12, 15, 18], 8, dtype == torch.float32)
    charges, field = torch.zeros(2).double(), torch.zeros(12, 15, 18, dtype=dtype)
    mesh_triton.spread(state, charges, [12, 15, 18])
    mesh_triton.gather(state, field)
    mesh_triton.gather_gradient(state, field)
    place, image = torch.zeros(2, 3).double(), torch.zeros(1, dtype=torch.int32)
    rows = pair_triton.rows(torch.tensor([0]), torch.tensor([1]), 2)
    widths = torch.ones(1).double(), image, 2.0, 9.0, 14.4, dtype == torch.float32
    terms = pair_triton.terms(rows, place, place, image, *widths)
    pair_triton.product(rows, terms, charges)
    values = torch.zeros(2, 5, dtype=dtype)
    activation_triton.silu_along(values, values[0])
    activation_triton.silu_along_gradient(values, values[0], values)
    pair_triton.gradient(rows, terms, place, place, image, charges, charges, False)


CASES = {
    "l_max 1, float32": functools.partial(convolve, "32x0e+32x1o", 1, torch.float32, True),
    "l_max 1, float64": functools.partial(convolve, "32x0e+32x1o", 1, torch.float64, False),
    "l_max 2, float32": functools.partial(convolve, "64x0e+64x1o+64x2e", 2, torch.float32, False),
    "sums, float32": functools.partial(sums, torch.float32),
    "sums, float64": functools.partial(sums, torch.float64),
}
