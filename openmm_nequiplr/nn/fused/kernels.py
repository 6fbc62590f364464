"""Compiled loops of the edge convolution: gather, multiply, accumulate; nothing kept per edge.

Every kernel works on a range of atoms, so that several threads can share the atoms: none writes to
a row of another range. Features are channel-last, as in
:class:`~openmm_nequiplr.nn.EdgeTensorProduct`; the radial weights come from a table
(:mod:`openmm_nequiplr.nn.fused.table`). The tables of the product are explained in
:class:`~openmm_nequiplr.nn.fused.plan.ProductPlan`.
"""

from __future__ import annotations

import numba
import numpy as np

# Sums over channels may be reordered, which lets them run in vector registers.
_FLAGS = {"fastmath": {"reassoc", "contract", "nsz"}, "nogil": True, "error_model": "numpy"}


def _compile(function):
    """Compile on first use; keep the machine code on disk where there is a place to write to."""
    try:
        return numba.njit(cache=True, **_FLAGS)(function)
    except RuntimeError:  # no cache directory
        return numba.njit(**_FLAGS)(function)


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
def _hermite(t, h, value, slope):
    """Quintic Hermite basis at t in [0, 1], and its derivative over the step h."""
    t2 = t * t
    t3 = t2 * t
    u = 1.0 - t
    value[3] = t3 * (10.0 - 15.0 * t + 6.0 * t2)
    value[0] = 1.0 - value[3]
    value[1] = t * u * u * u * (1.0 + 3.0 * t)
    value[4] = -t3 * u * (4.0 - 3.0 * t)
    value[2] = 0.5 * t2 * u * u * u
    value[5] = 0.5 * t3 * u * u
    slope[3] = 30.0 * t2 * u * u / h
    slope[0] = -slope[3]
    slope[1] = u * u * (1.0 + 2.0 * t - 15.0 * t2) / h
    slope[4] = t2 * (-12.0 + 28.0 * t - 15.0 * t2) / h
    slope[2] = 0.5 * t * u * u * (2.0 - 5.0 * t) / h
    slope[5] = 0.5 * t2 * u * (3.0 - 5.0 * t) / h


@_compile
def _weights(knots, row, basis, out):
    """Radial weights of one edge: six numbers a weight, weighted with the Hermite basis."""
    b0, b1, b2, b3, b4, b5 = basis[0], basis[1], basis[2], basis[3], basis[4], basis[5]
    first, second = knots[row], knots[row + 1]
    n = out.shape[0]
    for q in range(n):
        low = b0 * first[q] + b1 * first[n + q] + b2 * first[2 * n + q]
        out[q] = low + b3 * second[q] + b4 * second[n + q] + b5 * second[2 * n + q]


@_compile
def _couple(coupling, harmonics, matrix):
    """The product's matrix of one edge: every entry a combination of the harmonics."""
    for n in range(matrix.shape[0]):
        total = matrix.dtype.type(0.0)
        for m in range(harmonics.shape[0]):
            total += coupling[n, m] * harmonics[m]
        matrix[n] = total


@_compile
def forward(
    begin, end, start, order, neighbor, features, harmonics, length,
    knots, origin, step, entries, coupling, channels, out,
):  # fmt: skip
    """Sums of messages of the atoms ``begin`` to ``end``: ``out``, shape (N, out_dim)."""
    mul = len(channels)
    intervals = knots.shape[0] - 1
    basis64, slope64 = np.empty(6), np.empty(6)
    basis = np.empty(6, dtype=features.dtype)
    weights = np.empty(knots.shape[1] // 3, dtype=features.dtype)
    matrix = np.empty(entries.shape[0], dtype=features.dtype)
    for i in range(begin, end):
        total = out[i]
        total[:] = 0.0
        for s in range(start[i], start[i + 1]):
            e = order[s]
            x = (np.float64(length[e]) - origin) / step
            row = int(x)
            if row >= intervals:
                continue
            _hermite(x - row, step, basis64, slope64)
            basis[:] = basis64
            _weights(knots, row, basis, weights)
            _couple(coupling, harmonics[e], matrix)
            source = features[neighbor[e]]
            for n in range(entries.shape[0]):
                c = matrix[n]
                w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
                for u in range(mul):
                    total[b + u] += c * weights[w + u] * source[a + u]


@_compile
def backward_features(
    begin, end, start, order, center, gradient, harmonics, length,
    knots, origin, step, entries, coupling, channels, out,
):  # fmt: skip
    """Gradient of the features of atoms ``begin`` to ``end``; edges sorted by neighbour."""
    mul = len(channels)
    intervals = knots.shape[0] - 1
    basis64, slope64 = np.empty(6), np.empty(6)
    basis = np.empty(6, dtype=gradient.dtype)
    weights = np.empty(knots.shape[1] // 3, dtype=gradient.dtype)
    matrix = np.empty(entries.shape[0], dtype=gradient.dtype)
    for j in range(begin, end):
        total = out[j]
        total[:] = 0.0
        for s in range(start[j], start[j + 1]):
            e = order[s]
            x = (np.float64(length[e]) - origin) / step
            row = int(x)
            if row >= intervals:
                continue
            _hermite(x - row, step, basis64, slope64)
            basis[:] = basis64
            _weights(knots, row, basis, weights)
            _couple(coupling, harmonics[e], matrix)
            source = gradient[center[e]]
            for n in range(entries.shape[0]):
                c = matrix[n]
                w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
                for u in range(mul):
                    total[a + u] += c * weights[w + u] * source[b + u]


@_compile
def backward_edges(
    begin, end, start, order, neighbor, features, gradient, harmonics, length,
    knots, origin, step, entries, coupling, channels, out_harmonics, out_length,
):  # fmt: skip
    """Gradient of the harmonics and lengths of the edges whose centres are ``begin`` to ``end``."""
    mul = len(channels)
    intervals = knots.shape[0] - 1
    zero = features.dtype.type(0.0)
    basis64, slope64 = np.empty(6), np.empty(6)
    basis, slope = np.empty(6, dtype=features.dtype), np.empty(6, dtype=features.dtype)
    weights = np.empty(knots.shape[1] // 3, dtype=features.dtype)
    slopes = np.empty(knots.shape[1] // 3, dtype=features.dtype)
    matrix = np.empty(entries.shape[0], dtype=features.dtype)
    for i in range(begin, end):
        target = gradient[i]
        for s in range(start[i], start[i + 1]):
            e = order[s]
            along = out_harmonics[e]
            along[:] = 0.0
            out_length[e] = 0.0
            x = (np.float64(length[e]) - origin) / step
            row = int(x)
            if row >= intervals:
                continue
            _hermite(x - row, step, basis64, slope64)
            basis[:] = basis64
            slope[:] = slope64
            _weights(knots, row, basis, weights)
            _weights(knots, row, slope, slopes)
            _couple(coupling, harmonics[e], matrix)
            source = features[neighbor[e]]
            radial = zero
            for n in range(entries.shape[0]):
                w, a, b = entries[n, 0], entries[n, 1], entries[n, 2]
                angular, stretch = zero, zero
                for u in range(mul):
                    both = source[a + u] * target[b + u]
                    angular += weights[w + u] * both
                    stretch += slopes[w + u] * both
                radial += matrix[n] * stretch
                for m in range(along.shape[0]):
                    along[m] += coupling[n, m] * angular
            out_length[e] = radial
