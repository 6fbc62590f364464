"""Compiled loops of :mod:`.convolution` for the CPU (numba).

The loops of inference (``tabulated_...``) process a range of atoms and store nothing per edge; each
thread writes only the rows of its own range. The loops of training (``add_...``) process a range of
edges with precomputed weights and add to their outputs. The tables ``entries``, ``terms`` and
``factors`` are defined in :class:`~openmm_nequiplr.ops.convolution.Convolution`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..jit import compiled_loop
from ..threads import each_block, even_bounds

#: Fewest edges for which another thread pays.
EDGES_PER_THREAD = 1500

# Sums over channels may be reordered so that the compiler can vectorise them.
_compile = compiled_loop(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_compile
def _sort(key, count):
    """Stable counting sort of E indices below ``count``: (order, start) with row k at start[k]."""
    start = np.zeros(count + 1, dtype=np.int64)
    for k in key:
        start[k + 1] += 1
    for i in range(count):
        start[i + 1] += start[i]
    place = start[:-1].copy()
    order = np.empty(key.shape[0], dtype=np.int64)
    for e in range(key.shape[0]):
        order[place[key[e]]] = e
        place[key[e]] += 1
    return order, start


@_compile
def _look_up(coefficients, row, factors, out):
    """Radial weights of one edge: for each, the six coefficients times six factors, summed."""
    b0, b1, b2, b3, b4, b5 = factors[0], factors[1], factors[2], factors[3], factors[4], factors[5]
    n = out.shape[0]
    line = coefficients[row]
    c0, c1, c2 = line[:n], line[n : 2 * n], line[2 * n : 3 * n]
    c3, c4, c5 = line[3 * n : 4 * n], line[4 * n : 5 * n], line[5 * n :]
    for q in range(n):
        out[q] = b0 * c0[q] + b1 * c1[q] + b2 * c2[q] + b3 * c3[q] + b4 * c4[q] + b5 * c5[q]


@_compile
def _couple(terms, factors, harmonics, matrix):
    """Matrix of the product on one edge; each entry is a linear combination of the harmonics."""
    matrix[:] = 0.0
    for s in range(factors.shape[0]):
        matrix[terms[s, 0]] += factors[s] * harmonics[terms[s, 1]]


@_compile
def tabulated_sums(
    begin, end, start, order, other, source, harmonics, length,
    coefficients, origin, step, entries, terms, factors, mul, transposed, out,
):  # fmt: skip
    """Write rows ``begin`` to ``end`` of ``out``: sums over edges of products with ``source``.

    They are the sums of messages if ``other`` are the neighbours. Transposed, with a and b of the
    entries swapped, edges sorted by neighbour, and the centres as ``other``, they are the gradient
    of the features.
    """
    side = 1 if transposed else 0
    intervals = coefficients.shape[0]
    basis = np.empty(6, dtype=source.dtype)
    weights = np.empty(coefficients.shape[1] // 6, dtype=source.dtype)
    matrix = np.empty(entries.shape[0], dtype=source.dtype)
    for i in range(begin, end):
        out[i, :] = 0.0
        for s in range(start[i], start[i + 1]):
            e = order[s]
            x = (np.float64(length[e]) - origin) * (1.0 / step)
            if not 0.0 <= x < intervals:
                continue
            row = int(x)
            basis[0] = 1.0
            for k in range(1, 6):
                basis[k] = (x - row - 0.5) * basis[k - 1]
            _look_up(coefficients, row, basis, weights)
            _couple(terms, factors, harmonics[e], matrix)
            j = other[e]
            for n in range(entries.shape[0]):
                c = matrix[n]
                w, a, b = entries[n, 0], entries[n, 1 + side], entries[n, 2 - side]
                weight, part = weights[w : w + mul], source[j, a : a + mul]
                total = out[i, b : b + mul]
                for u in range(mul):
                    total[u] += c * weight[u] * part[u]


@_compile
def tabulated_slopes(
    begin, end, start, order, neighbor, features, gradient, harmonics, length,
    coefficients, origin, step, entries, terms, factors, mul, out_harmonics, out_length,
):  # fmt: skip
    """Gradients of harmonics and lengths of the edges whose centres are ``begin`` to ``end``."""
    intervals = coefficients.shape[0]
    zero = features.dtype.type(0.0)
    basis, rise = np.empty(6, dtype=features.dtype), np.empty(6, dtype=features.dtype)
    weights = np.empty(coefficients.shape[1] // 6, dtype=features.dtype)
    slopes = np.empty(coefficients.shape[1] // 6, dtype=features.dtype)
    matrix = np.empty(entries.shape[0], dtype=features.dtype)
    for i in range(begin, end):
        for s in range(start[i], start[i + 1]):
            e = order[s]
            out_harmonics[e, :] = 0.0
            out_length[e] = 0.0
            x = (np.float64(length[e]) - origin) * (1.0 / step)
            if not 0.0 <= x < intervals:
                continue
            row = int(x)
            t = x - row - 0.5
            basis[0], rise[0] = 1.0, 0.0
            for k in range(1, 6):
                rise[k] = k * basis[k - 1] / step
                basis[k] = t * basis[k - 1]
            _look_up(coefficients, row, basis, weights)
            _look_up(coefficients, row, rise, slopes)
            _couple(terms, factors, harmonics[e], matrix)
            j = neighbor[e]
            radial = zero
            for n in range(entries.shape[0]):
                w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
                weight, slope = weights[w : w + mul], slopes[w : w + mul]
                part, target = features[j, a : a + mul], gradient[i, b : b + mul]
                angular, stretch = zero, zero
                for u in range(mul):
                    both = part[u] * target[u]
                    angular += weight[u] * both
                    stretch += slope[u] * both
                radial += matrix[n] * stretch
                matrix[n] = angular
            out_length[e] = radial
            for k in range(factors.shape[0]):
                out_harmonics[e, terms[k, 1]] += factors[k] * matrix[terms[k, 0]]


@_compile
def add_messages(
    begin, end, center, neighbor, features, harmonics, weights, entries, terms, factors, mul, out
):
    """Add the messages of edges ``begin`` to ``end`` to the rows of their centres."""
    matrix = np.empty(entries.shape[0], dtype=features.dtype)
    for e in range(begin, end):
        _couple(terms, factors, harmonics[e], matrix)
        i, j = center[e], neighbor[e]
        for n in range(entries.shape[0]):
            c = matrix[n]
            w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
            weight, part = weights[e, w : w + mul], features[j, a : a + mul]
            total = out[i, b : b + mul]
            for u in range(mul):
                total[u] += c * weight[u] * part[u]


@_compile
def add_gradients(
    begin, end, center, neighbor, features, harmonics, weights, gradient,
    entries, terms, factors, mul, out_features, out_harmonics, out_weights,
):  # fmt: skip
    """Add the gradients of features, harmonics and weights from a gradient of the messages."""
    zero = features.dtype.type(0.0)
    matrix = np.empty(entries.shape[0], dtype=features.dtype)
    for e in range(begin, end):
        _couple(terms, factors, harmonics[e], matrix)
        i, j = center[e], neighbor[e]
        for n in range(entries.shape[0]):
            c = matrix[n]
            w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
            weight, part = weights[e, w : w + mul], features[j, a : a + mul]
            target = gradient[i, b : b + mul]
            to_part, to_weight = out_features[j, a : a + mul], out_weights[e, w : w + mul]
            angular = zero
            for u in range(mul):
                to_part[u] += c * target[u] * weight[u]
                to_weight[u] += c * target[u] * part[u]
                angular += target[u] * weight[u] * part[u]
            matrix[n] = angular
        for s in range(factors.shape[0]):
            out_harmonics[e, terms[s, 1]] += factors[s] * matrix[terms[s, 0]]


@_compile
def add_second_gradients(
    begin, end, center, neighbor, features, harmonics, weights, gradient,
    feature_steps, harmonic_steps, weight_steps, entries, terms, factors, mul,
    out_features, out_gradient, out_harmonics, out_weights,
):  # fmt: skip
    """Add the gradients of the inner product of :func:`add_gradients` with given steps.

    The inner product is Σ (C w y + D w x + C v x) g. C and D are the entries of the matrices of the
    harmonics and of their steps, w are the weights and v their steps, x the features and y their
    steps, and g is the gradient.
    """
    zero = features.dtype.type(0.0)
    matrix = np.empty(entries.shape[0], dtype=features.dtype)
    turned = np.empty(entries.shape[0], dtype=features.dtype)
    for e in range(begin, end):
        _couple(terms, factors, harmonics[e], matrix)
        _couple(terms, factors, harmonic_steps[e], turned)
        i, j = center[e], neighbor[e]
        for n in range(entries.shape[0]):
            c, d = matrix[n], turned[n]
            w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
            weight, heavier = weights[e, w : w + mul], weight_steps[e, w : w + mul]
            part, moved = features[j, a : a + mul], feature_steps[j, a : a + mul]
            target = gradient[i, b : b + mul]
            to_part, to_weight = out_features[j, a : a + mul], out_weights[e, w : w + mul]
            to_target = out_gradient[i, b : b + mul]
            angular = zero
            for u in range(mul):
                by_part = d * weight[u] + c * heavier[u]
                by_weight = c * moved[u] + d * part[u]
                to_part[u] += target[u] * by_part
                to_weight[u] += target[u] * by_weight
                to_target[u] += weight[u] * by_weight + c * heavier[u] * part[u]
                angular += target[u] * (weight[u] * moved[u] + heavier[u] * part[u])
            matrix[n] = angular
        for s in range(factors.shape[0]):
            out_harmonics[e, terms[s, 1]] += factors[s] * matrix[terms[s, 0]]


def sort_edges(ends: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    """Orders of the edges by centre and by neighbour, and the start of each atom's edges."""
    orders, starts = zip(*(_sort(row, num_atoms) for row in ends.numpy()), strict=True)
    return torch.from_numpy(np.stack(orders)), torch.from_numpy(np.stack(starts))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.contiguous().numpy() for t in tensors]


@functools.cache
def _product(tables: str, dtype: torch.dtype) -> tuple[np.ndarray, ...]:
    """``entries``, ``terms`` and ``factors``."""
    entries, terms, factors = json.loads(tables)
    return (
        np.array(entries, dtype=np.int64).reshape(-1, 3),
        np.array(terms, dtype=np.int64).reshape(-1, 2),
        torch.tensor(factors, dtype=dtype).numpy(),
    )


def _over_edges(
    kernel: Any,
    inputs: Sequence[Tensor],
    product: Sequence[Any],
    atoms: Sequence[Sequence[int]],
    edges: Sequence[Sequence[int]] = (),
) -> tuple[Tensor, ...]:
    """Run a kernel over all edges; each thread accumulates its own sums over atoms.

    ``inputs`` are centres, neighbours and the other inputs of the kernel, ``product`` the tables
    and the number of channels. ``atoms`` are the shapes of the sums over atoms, ``edges`` those of
    the values of edges.
    """
    like = inputs[2]
    of_edges = [like.new_zeros(shape) for shape in edges]
    arrays = *_arrays(*inputs), *_product(product[0], like.dtype), product[1]

    def run(begin: int, end: int) -> list[Tensor]:
        of_atoms = [like.new_zeros(shape) for shape in atoms]
        kernel(begin, end, *arrays, *_arrays(*of_atoms, *of_edges))
        return of_atoms

    parts = each_block(even_bounds(inputs[0].shape[0], EDGES_PER_THREAD), run)
    of_atoms = [functools.reduce(torch.add, sums) for sums in zip(*parts, strict=True)]
    return *of_atoms, *of_edges


def convolution(*inputs: Any) -> Tensor:
    """Sums of messages, shape (N, width)."""
    features, harmonics, weights, center, neighbor, *product, width = inputs
    values = center, neighbor, features, harmonics, weights
    return _over_edges(add_messages, values, product, [(features.shape[0], width)])[0]


def convolution_gradients(*inputs: Any) -> tuple[Tensor, ...]:
    """Gradients of features, harmonics and weights from a gradient of the convolution."""
    features, harmonics, weights, center, neighbor, gradient, *product = inputs
    values = center, neighbor, features, harmonics, weights, gradient
    of_edges = harmonics.shape, weights.shape
    return _over_edges(add_gradients, values, product, [features.shape], of_edges)


def convolution_second_gradients(*inputs: Any) -> tuple[Tensor, ...]:
    """Second derivatives: gradients of features, ``gradient``, harmonics and weights.

    ``directions`` are gradients of the three results of :func:`convolution_gradients`.
    """
    features, harmonics, weights, center, neighbor, gradient, directions, *product = inputs
    values = center, neighbor, features, harmonics, weights, gradient, *directions
    of_atoms, of_edges = [features.shape, gradient.shape], [harmonics.shape, weights.shape]
    return _over_edges(add_second_gradients, values, product, of_atoms, of_edges)


def _over_atoms(kernel: Any, start: Tensor, arguments: Sequence[Any]) -> None:
    """Run a kernel in threads, over ranges of atoms with equal numbers of edges."""
    first = start.numpy()
    bounds = even_bounds(int(first[-1]), EDGES_PER_THREAD)
    if len(bounds) > 2:
        bounds = np.searchsorted(first, bounds).tolist()
    bounds[0], bounds[-1] = 0, first.shape[0] - 1
    each_block(bounds, lambda begin, end: kernel(begin, end, first, *arguments))


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
    side = int(transposed)
    out = features.new_empty(features.shape[0], width)
    edges = _arrays(order[side], ends[1 - side], features, harmonics, length, coefficients)
    product = *_product(tables, features.dtype), mul, transposed
    _over_atoms(tabulated_sums, start[side], (*edges, origin, step, *product, out.numpy()))
    return out


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
    out = torch.empty_like(harmonics), torch.empty_like(length)
    edges = _arrays(order[0], ends[1], features, gradient, harmonics, length, coefficients)
    product = *_product(tables, features.dtype), mul
    _over_atoms(tabulated_slopes, start[0], (*edges, origin, step, *product, *_arrays(*out)))
    return out
