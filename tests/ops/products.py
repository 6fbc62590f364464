"""Convolutions of random features along random edges, with weights or with a table of them."""

from __future__ import annotations

import torch
from e3nn import o3

from openmm_nequiplr.nn import EdgeTensorProduct
from openmm_nequiplr.nn.table import interpolate
from openmm_nequiplr.ops import RadialTable


def product_of(irreps: str, l_max: int, dtype=torch.float64, atoms: int = 4, edges: int = 6):
    """A product, random features, harmonics and weights, and edges in no order."""
    irreps, harmonics = o3.Irreps(irreps), o3.Irreps.spherical_harmonics(l_max)
    product = EdgeTensorProduct(irreps, harmonics, irreps).to(dtype)
    generator = torch.Generator().manual_seed(1)
    shapes = (atoms, irreps.dim), (edges, harmonics.dim), (edges, product.weight_numel)
    values = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    ends = torch.randint(0, atoms, (2, edges), generator=generator)
    return product, [v.requires_grad_() for v in values], ends


def tabulated_of(irreps: str, l_max: int, dtype=torch.float64, **sizes: int):
    """The same with lengths and a table in place of the weights, whose first edge is beyond it."""
    product, (features, harmonics, _), ends = product_of(irreps, l_max, dtype, **sizes)
    generator = torch.Generator().manual_seed(2)
    shape = 5, 6 * product.weight_numel
    table = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    length = 0.3 + torch.rand(ends.shape[1], generator=generator, dtype=torch.float64) * 2.4
    length[:1] = 3.0
    table = RadialTable(table, 0.25, 0.5)
    return product, [features, harmonics, length.to(dtype).requires_grad_()], ends, table


def tabulated_reference(product, features, harmonics, length, ends, table):
    """What a convolution with a table is to give."""
    inside = length < table.origin + table.step * table.coefficients.shape[0]
    weights = interpolate(table, length) * inside.unsqueeze(1)
    return product.reference(features, harmonics, weights, *ends)


def assert_close(found, expected, tolerance: float) -> None:
    """Compare tensors by the largest number of each."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if other.numel():
            one, other = one.detach(), other.detach()
            assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())
