"""Triton kernels of :mod:`.convolution`, generated from the tables of a product."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from .convolution_source import ProductSource
from .triton_launch import generated, launch


@functools.cache
def _kernels(tables: str, tabulated: bool, num_harmonics: int) -> dict[str, Any]:
    return generated(ProductSource(tables, tabulated, num_harmonics).source())


def _run(
    name: str,
    tables: str,
    mul: int,
    edges: Sequence[Tensor],
    rows: tuple[Tensor, Tensor],
    inputs: Sequence[Tensor],
    out: Sequence[Tensor],
    radial: tuple[Tensor, float, float] | None,
) -> None:
    """Run a kernel of a product.

    ``edges`` are the start of each atom's edges, their order, and their other ends. ``rows`` have
    the row widths at the other end and at the atom. ``inputs`` end with the harmonics and the
    lengths or weights. ``radial`` is a table or None.
    """
    harmonics, lengths_or_weights = inputs[-2:]
    table, origin, step = radial if radial is not None else (lengths_or_weights, 0.0, 1.0)
    block = triton.next_power_of_2(mul)
    launch(
        _kernels(tables, radial is not None, harmonics.shape[1])[
            f"{'weighted' if radial is None else 'tabulated'}_{name}"
        ],
        edges[0].shape[0] - 1,
        *(each.contiguous() for each in (*edges, *inputs, table)),
        *out,
        ORIGIN=origin,
        INVERSE=1.0 / step,
        ROWS=table.shape[0] if radial is not None else 1,
        IN=rows[0].shape[1],
        OUT=rows[1].shape[1],
        NH=harmonics.shape[1],
        NW=lengths_or_weights.shape[1] if radial is None else table.shape[1] // 6,
        MUL=mul,
        BLOCK=block,
        warps=max(1, min(block // 32, 8)),  # one channel per thread
    )


def sort_edges(ends: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    """Orders of the edges by centre and by neighbour, and the start of each atom's edges."""
    sides = [_sorted(end, num_atoms) for end in ends]
    order, start = (torch.stack(parts) for parts in zip(*sides, strict=True))
    return order, start


def _sorted(end: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    atoms = torch.arange(num_atoms + 1, dtype=torch.int32, device=end.device)
    keys, order = torch.sort(end.to(torch.int32), stable=True)
    return order, torch.searchsorted(keys, atoms)


def _sides(center: Tensor, neighbor: Tensor, count: int) -> list[list[Tensor]]:
    """Edges by centre and by neighbour: start of each atom's edges, order, other ends."""
    sides = []
    for own, other in ((center, neighbor), (neighbor, center)):
        order, start = _sorted(own, count)
        sides.append([start, order, other])
    return sides


def convolution(
    features: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    center: Tensor,
    neighbor: Tensor,
    tables: str,
    mul: int,
    width: int,
) -> Tensor:
    """Sums of messages, shape (N, width)."""
    by_center, _ = _sides(center, neighbor, features.shape[0])
    return _sums(by_center, features, harmonics, weights, tables, mul, width)


def _sums(
    edges: Sequence[Tensor],
    source: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    tables: str,
    mul: int,
    width: int,
    transposed: bool = False,
    table: tuple[Tensor, float, float] | None = None,
) -> Tensor:
    out = source.new_empty(source.shape[0], width)
    inputs, name = (source, harmonics, radial), "transposed" if transposed else "sums"
    _run(name, tables, mul, edges, (source, out), inputs, [out], table)
    return out


def _slopes(
    edges: Sequence[Tensor],
    features: Tensor,
    gradient: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    tables: str,
    mul: int,
    table: tuple[Tensor, float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of harmonics and of weights or lengths of each edge."""
    out = harmonics.new_empty(harmonics.shape), radial.new_empty(radial.shape)
    inputs, rows = (features, gradient, harmonics, radial), (features, gradient)
    _run("slopes", tables, mul, edges, rows, inputs, out, table)
    return out


def convolution_gradients(
    features: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    center: Tensor,
    neighbor: Tensor,
    gradient: Tensor,
    tables: str,
    mul: int,
) -> tuple[Tensor, ...]:
    """Gradients of features, harmonics and weights from a gradient of the convolution."""
    by_center, by_neighbor = _sides(center, neighbor, features.shape[0])
    product = tables, mul
    width = features.shape[1]
    return (
        _sums(by_neighbor, gradient, harmonics, weights, *product, width, transposed=True),
        *_slopes(by_center, features, gradient, harmonics, weights, *product),
    )


def convolution_second_gradients(
    features: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    center: Tensor,
    neighbor: Tensor,
    gradient: Tensor,
    directions: Sequence[Tensor],
    tables: str,
    mul: int,
) -> tuple[Tensor, ...]:
    """Second derivatives: gradients of features, ``gradient``, harmonics and weights.

    The inner product of the first gradients and ``directions`` is differentiated. It is a sum of
    three convolutions times ``gradient``; in each, a direction replaces one of the three factors.
    """
    by_center, by_neighbor = _sides(center, neighbor, features.shape[0])
    moved, turned, heavier = directions
    widths, product = (features.shape[1], gradient.shape[1]), (tables, mul)
    ways = [
        (moved, harmonics, weights),
        (features, turned, weights),
        (features, harmonics, heavier),
    ]
    sums = [_sums(by_center, x, h, w, *product, widths[1]) for x, h, w in ways]
    back = [
        _sums(by_neighbor, gradient, h, w, *product, widths[0], transposed=True)
        for _, h, w in ways[1:]
    ]
    slopes = [_slopes(by_center, x, gradient, h, w, *product) for x, h, w in ways]
    of_harmonics, of_weights = slopes[0][0] + slopes[2][0], slopes[0][1] + slopes[1][1]
    return back[0] + back[1], sums[0] + sums[1] + sums[2], of_harmonics, of_weights


def tabulated_convolution(
    features: Tensor,
    harmonics: Tensor,
    length: Tensor,
    ends: Tensor,
    order: Tensor,
    start: Tensor,
    coefficients: Tensor,
    origin: float,
    step: float,
    tables: str,
    mul: int,
    width: int,
    transposed: bool,
) -> Tensor:
    """Sums of messages or, transposed, the gradient of the features, shape (N, width)."""
    side, table = int(transposed), (coefficients, origin, step)
    edges = start[side], order[side], ends[1 - side]
    return _sums(edges, features, harmonics, length, tables, mul, width, transposed, table)


def tabulated_convolution_gradients(
    features: Tensor,
    gradient: Tensor,
    harmonics: Tensor,
    length: Tensor,
    ends: Tensor,
    order: Tensor,
    start: Tensor,
    coefficients: Tensor,
    origin: float,
    step: float,
    tables: str,
    mul: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of harmonics and lengths from a gradient of the tabulated convolution."""
    edges, table = (start[0], order[0], ends[1]), (coefficients, origin, step)
    return _slopes(edges, features, gradient, harmonics, length, tables, mul, table)
