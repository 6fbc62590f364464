"""Compiled loops of the edge convolution: gather, multiply, accumulate; nothing kept per edge.

Every kernel works on a range of atoms, so that several threads can share the atoms: none writes to
a row of another range. Features are channel-last, as in
:class:`~openmm_nequiplr.nn.EdgeTensorProduct`; the radial weights come from a table
(:mod:`openmm_nequiplr.nn.fused.table`). The tables of the product are explained in
:class:`~openmm_nequiplr.nn.fused.plan.ProductPlan`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

# Sums over channels may be reordered, which lets them run in vector registers.
_FLAGS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz"},
    "nogil": True,
    "error_model": "numpy",
}


def _compile(function):
    """Compile on first use; keep the machine code on disk where there is a place to write to."""
    try:
        return numba.njit(function, cache=True, **_FLAGS)
    except RuntimeError:  # no cache directory
        return numba.njit(function, **_FLAGS)


@_compile
def sort_edges(key, count):
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
    """Radial weights of one edge: a sum of the six coefficients of each with six factors."""
    b0, b1, b2, b3, b4, b5 = factors[0], factors[1], factors[2], factors[3], factors[4], factors[5]
    n = out.shape[0]
    line = coefficients[row]
    c0, c1, c2 = line[:n], line[n : 2 * n], line[2 * n : 3 * n]
    c3, c4, c5 = line[3 * n : 4 * n], line[4 * n : 5 * n], line[5 * n :]
    for q in range(n):
        out[q] = b0 * c0[q] + b1 * c1[q] + b2 * c2[q] + b3 * c3[q] + b4 * c4[q] + b5 * c5[q]


@_compile
def _couple(terms, factors, harmonics, matrix):
    """The product's matrix of one edge: every entry a combination of the harmonics."""
    matrix[:] = 0.0
    for s in range(factors.shape[0]):
        matrix[terms[s, 0]] += factors[s] * harmonics[terms[s, 1]]


@_compile
def accumulate(
    begin, end, start, order, other, source, harmonics, length,
    coefficients, origin, step, entries, terms, factors, mul, out,
):  # fmt: skip
    """Rows ``begin`` to ``end`` of ``out``: sums over edges of products with rows of ``source``.

    With entries (w, a, b) these are the sums of messages, ``other`` being the neighbours. With a
    and b swapped and edges sorted by neighbour, ``other`` being the centres, they are the gradient
    of the features.
    """
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
                w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
                weight, part = weights[w : w + mul], source[j, a : a + mul]
                total = out[i, b : b + mul]
                for u in range(mul):
                    total[u] += c * weight[u] * part[u]


@_compile
def differentiate(
    begin, end, start, order, neighbor, features, gradient, harmonics, length,
    coefficients, origin, step, entries, terms, factors, mul, out_harmonics, out_length,
):  # fmt: skip
    """Gradient of the harmonics and lengths of the edges whose centres are ``begin`` to ``end``."""
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
