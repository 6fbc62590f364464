"""Compiled loops of :mod:`.mesh` for the CPU (numba); the same sums in torch are in :mod:`.mesh`.

All functions run on one thread and release the interpreter lock. N atoms, P pairs, spline order p,
S meshes of M1 × M2 × M3 points.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import config as numba_config
from numba import float64, from_dtype, int32, int64
from numba.cpython.unsafe import tuple as unsafe_tuple
from numba.np.unsafe import ndarray as unsafe
from numpy.polynomial.polynomial import polyadd, polymul, polysub

from ..jit import compiled_loop

#: Elements of a short array as a tuple.
_to_registers: Any = unsafe.to_fixed_tuple
#: A tuple with another value in one place.
_put: Any = unsafe_tuple.tuple_setitem


def spline_polynomials(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Cardinal B-splines and their slopes as polynomials (Essmann et al. 1995, eqs. 4.1 and 4.2).

    Parameters
    ----------
    order : int
        p, at least 3.

    Returns
    -------
    numpy.ndarray, shapes (p, p) and (p − 1, p)
        Coefficients, lowest power first, of the weight of each of the p points around a place that
        lies the fraction f beyond the point below it, and of its derivative by f.
    """
    weights: list[Any] = [np.array([1.0, -1.0]), np.array([0.0, 1.0])]
    slopes: list[Any] = []
    for n in range(3, order + 1):
        low, high = [np.zeros(1), *weights], [*weights, np.zeros(1)]
        slopes = [polysub(a, b) for a, b in zip(low, high, strict=True)]
        weights = [
            polyadd(polymul([n - 1 - j, 1], low[j]), polymul([1 + j, -1], high[j])) / (n - 1)
            for j in range(n)
        ]
    return _columns(weights, order), _columns(slopes, order - 1)


def _columns(polynomials: list[np.ndarray], powers: int) -> np.ndarray:
    result = np.zeros((powers, len(polynomials)))
    for column, polynomial in enumerate(polynomials):
        result[: len(polynomial), column] = polynomial[:powers]
    return result


@contextlib.contextmanager
def _straight_line_vectors() -> Iterator[None]:
    """Let the compiler join equal operations that stand side by side; numba leaves that out."""
    config: Any = numba_config
    before = config.SLP_VECTORIZE
    config.SLP_VECTORIZE = 1
    try:
        yield
    finally:
        config.SLP_VECTORIZE = before


@functools.cache
def stencil_kernels(order, dtype):
    """Loops over mesh points for one spline order and type, which the compiler then knows.

    In all of them ``index``, ``weight`` and ``slope``, shape (N, 3, p), are the mesh points around
    an atom, int32, wrapped into the cell, and M_p and dM_p/dx there, x in mesh spacings; ``layer``,
    int32, shape (N,), says which mesh of ``mesh``, shape (S, M1, M2, M3 + p − 1), is an atom's, and
    ``begin`` and ``end`` are the first atom and the one after the last. The last p − 1 points of a
    line of the mesh stand for its first ones, so that a stencil never breaks off.

    The compiler joins equal operations that stand side by side where it can tell that no write
    changes what is read: hence the points of a line come into registers before a row of sums is
    written, and those are kept for each line of a plane, so that none waits for the one before.

    Returns
    -------
    splines, spread, gather, gather_gradient : callable
    """
    value, change = spline_polynomials(order)
    steps = np.uintp(order)  # unsigned indices need no check for a negative one
    blank = (np.dtype(dtype).type(0.0),) * order

    @compiled_loop(fastmath=True)
    def splines(coordinates, shape, index, weight, slope, begin, end):
        """Write the stencils of atoms at ``coordinates``, shape (N, 3), in mesh spacings."""
        w, s = np.empty(order), np.empty(order)
        for i in range(begin, end):
            for d in range(3):
                floor = math.floor(coordinates[i, d])
                fraction = coordinates[i, d] - floor
                for j in range(steps):
                    w[j], s[j] = value[order - 1, j], change[order - 2, j]
                for k in range(1, order - 1):
                    for j in range(steps):
                        w[j] = w[j] * fraction + value[order - 1 - k, j]
                        s[j] = s[j] * fraction + change[order - 2 - k, j]
                size = np.int32(shape[d])
                start = np.int32(np.int64(floor) % shape[d])
                for j in range(steps):
                    weight[i, d, j], slope[i, d, j] = w[j] * fraction + value[0, j], s[j]
                    point = start + np.int32(j)
                    index[i, d, j] = point if point < size else point - size

    @compiled_loop(fastmath=True)
    def spread(index, weight, layer, charges, mesh, begin, end):
        """Add the charges, shape (N,), to ``mesh``."""
        _, height, width, depth = mesh.shape
        flat = mesh.reshape(-1)
        for i in range(begin, end):
            start, wz = np.uintp(index[i, 2, 0]), _to_registers(weight[i, 2], order)
            for a in range(steps):
                plane = (layer[i] * height + index[i, 0, a]) * width
                first = charges[i] * weight[i, 0, a]
                for b in range(steps):
                    line = np.uintp((plane + index[i, 1, b]) * depth) + start
                    factor = first * weight[i, 1, b]
                    for c in range(steps):
                        flat[line + c] += factor * wz[c]

    @compiled_loop(fastmath=True)
    def gather(index, weight, layer, mesh, near, result, begin, end):
        """Write the interpolated ``mesh`` plus the sum of ``near``, shape (T, N), into ``result``.

        That is float64 and has the shape (N,).
        """
        _, height, width, depth = mesh.shape
        flat = mesh.reshape(-1)
        rows = np.empty((order, order), mesh.dtype)
        for i in range(begin, end):
            start, wz = np.uintp(index[i, 2, 0]), weight[i, 2]
            rows[:] = 0.0
            for a in range(steps):
                plane = (layer[i] * height + index[i, 0, a]) * width
                wx = weight[i, 0, a]
                for b in range(steps):
                    line = np.uintp((plane + index[i, 1, b]) * depth) + start
                    points = blank
                    for c in range(order):
                        points = _put(points, c, flat[line + np.uintp(c)])
                    for c in range(steps):
                        rows[b, c] += wx * points[c]
            total = mesh.dtype.type(0.0)
            for b in range(steps):
                value = mesh.dtype.type(0.0)
                for c in range(steps):
                    value += wz[c] * rows[b, c]
                total += weight[i, 1, b] * value
            result[i] = total
            for t in range(near.shape[0]):
                result[i] += near[t, i]

    @compiled_loop(fastmath=True)
    def gather_gradient(index, weight, slope, layer, mesh, result, begin, end):
        """Write the interpolated ``mesh`` and its gradient into ``result``, float64, shape (N, 4).

        The gradient, columns 1 to 3, is per mesh spacing.
        """
        _, height, width, depth = mesh.shape
        flat = mesh.reshape(-1)
        zero = mesh.dtype.type(0.0)
        rows, changes = np.empty((order, order), mesh.dtype), np.empty((order, order), mesh.dtype)
        for i in range(begin, end):
            start, wz, sz = np.uintp(index[i, 2, 0]), weight[i, 2], slope[i, 2]
            rows[:], changes[:] = 0.0, 0.0
            for a in range(steps):
                plane = (layer[i] * height + index[i, 0, a]) * width
                wx, sx = weight[i, 0, a], slope[i, 0, a]
                for b in range(steps):
                    line = np.uintp((plane + index[i, 1, b]) * depth) + start
                    points = blank
                    for c in range(order):
                        points = _put(points, c, flat[line + np.uintp(c)])
                    for c in range(steps):
                        rows[b, c] += wx * points[c]
                    for c in range(steps):
                        changes[b, c] += sx * points[c]
            total, gx, gy, gz = zero, zero, zero, zero
            for b in range(steps):
                value, by_x, by_z = zero, zero, zero
                for c in range(steps):
                    value += wz[c] * rows[b, c]
                    by_x += wz[c] * changes[b, c]
                    by_z += sz[c] * rows[b, c]
                wy, sy = weight[i, 1, b], slope[i, 1, b]
                total += wy * value
                gx += wy * by_x
                gy += sy * value
                gz += wy * by_z
            result[i, 0], result[i, 1], result[i, 2], result[i, 3] = total, gx, gy, gz

    real = from_dtype(np.dtype(dtype))
    with _straight_line_vectors():
        weights, layers, mesh = real[:, :, ::1], int32[::1], real[:, :, :, ::1]
        common, block = (int32[:, :, ::1], weights), (int64, int64)
        spread.compile((*common, layers, real[::1], mesh, *block))
        gather.compile((*common, layers, mesh, real[:, ::1], float64[::1], *block))
        gather_gradient.compile((*common, weights, layers, mesh, float64[:, ::1], *block))
    return splines, spread, gather, gather_gradient


@compiled_loop(fastmath=True)
def join_meshes(meshes, density, begin, end):
    """Write the sum of the threads' meshes into ``density``, for the lines ``begin`` to ``end``.

    ``meshes``, shape (C, T, lines, M3 + p − 1), have lines that go on beyond the cell; what lies
    there belongs to the first points of ``density``, shape (C, lines, M3).
    """
    depth = density.shape[2]
    for c in range(density.shape[0]):
        for line in range(begin, end):
            for z in range(depth):
                density[c, line, z] = meshes[c, 0, line, z]
            for t in range(1, meshes.shape[1]):
                for z in range(depth):
                    density[c, line, z] += meshes[c, t, line, z]
            for t in range(meshes.shape[1]):
                for z in range(meshes.shape[3] - depth):
                    density[c, line, z] += meshes[c, t, line, depth + z]


@compiled_loop(fastmath=True)
def filter_waves(waves, filters, begin, end):
    """V_s = A_s Σ_t A_t ρ_t in place, for the waves ``begin`` to ``end``.

    ``waves``, complex, have the shape (C, S, K) and ``filters``, real, (S, K).
    """
    layers = waves.shape[1]
    for c in range(waves.shape[0]):
        for k in range(begin, end):
            total = filters[0, k] * waves[c, 0, k]
            for s in range(1, layers):
                total += filters[s, k] * waves[c, s, k]
            for s in range(layers):
                waves[c, s, k] = filters[s, k] * total


@compiled_loop(fastmath=True)
def pair_values(positions, shifts, pairs, kinds, table, inverse_step, values, slopes, begin, end):
    """Write coefficients c and 2 dc/d(r²) of the pairs of atoms ``begin`` to ``end``.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    shifts : numpy.ndarray, shape (I, 3), Å
        Translations of the images that occur.
    pairs : tuple of 3 numpy.ndarray, int32
        Where an atom's pairs begin, shape (N + 1,); second atom and row of ``shifts``, shape (P,).
    kinds : tuple of 2 numpy.ndarray
        Row of ``table`` of each pair, int32; square of each kind's cutoff in Å².
    table : numpy.ndarray, shape (kinds, points, 4), eV/e²
        Cubic polynomials in (r² − n step)/step for r² from n step on; the last one is zero, and
        pairs beyond the cutoff take it, as a branch that is often mispredicted would cost more.
    inverse_step : float, 1/Å²
    values, slopes : numpy.ndarray, shape (P,), eV/e² and eV/(e Å)²
    """
    pointer, second, image = pairs
    kind, limits = kinds
    double = table.dtype.type(2.0 * inverse_step)
    beyond = float(table.shape[1] - 1)
    for i in range(begin, end):
        xi, yi, zi = positions[i, 0], positions[i, 1], positions[i, 2]
        for p in range(np.uintp(pointer[i]), np.uintp(pointer[i + 1])):
            j, s = np.uintp(second[p]), np.uintp(image[p])
            x = positions[j, 0] - xi + shifts[s, 0]
            y = positions[j, 1] - yi + shifts[s, 1]
            z = positions[j, 2] - zi + shifts[s, 2]
            square = x * x + y * y + z * z
            k = np.uintp(kind[p])
            place = square * inverse_step if square < limits[k] else beyond
            whole = np.int32(place)  # unsigned and 64-bit conversions are slow
            n = np.uintp(whole)
            t = table.dtype.type(place - whole)
            c0, c1, c2, c3 = table[k, n, 0], table[k, n, 1], table[k, n, 2], table[k, n, 3]
            values[p] = c0 + t * (c1 + t * (c2 + t * c3))
            slopes[p] = double * (c1 + t * (c2 + c2 + t * (c3 + c3 + c3)))


@compiled_loop(fastmath=True)
def pair_product(pairs, values, charges, result, begin, end):
    """Add the potential of the pairs of atoms ``begin`` to ``end`` to ``result``, shape (N,)."""
    pointer, second, _ = pairs
    for i in range(begin, end):
        own = charges[i]
        total = values.dtype.type(0.0)
        for p in range(np.uintp(pointer[i]), np.uintp(pointer[i + 1])):
            j = np.uintp(second[p])
            total += values[p] * charges[j]
            result[j] += values[p] * own
        result[i] += total


@compiled_loop(fastmath=True)
def pair_gradient(
    positions, shifts, pairs, values, slopes, charges, gradient, of_shift, begin, end
):
    """Pair energy Σ c(r) (q_i q_j − p_i p_j) in eV of the pairs of atoms ``begin`` to ``end``.

    ``charges``, shape (N, 2), holds q and p. Adds dE/dx to ``gradient``, shape (N, 3), and, unless
    ``of_shift`` is empty, dE/d(shift) to ``of_shift``, shape (I, 3), eV/Å.
    """
    pointer, second, image = pairs
    energy = 0.0
    virial = of_shift.shape[0] > 0
    for i in range(begin, end):
        xi, yi, zi = positions[i, 0], positions[i, 1], positions[i, 2]
        q, w = charges[i, 0], charges[i, 1]
        gx, gy, gz = 0.0, 0.0, 0.0
        for p in range(np.uintp(pointer[i]), np.uintp(pointer[i + 1])):
            j, s = np.uintp(second[p]), np.uintp(image[p])
            product = q * charges[j, 0] - w * charges[j, 1]
            energy += product * values[p]
            factor = product * slopes[p]
            fx = factor * (positions[j, 0] - xi + shifts[s, 0])
            fy = factor * (positions[j, 1] - yi + shifts[s, 1])
            fz = factor * (positions[j, 2] - zi + shifts[s, 2])
            gx += fx
            gy += fy
            gz += fz
            gradient[j, 0] += fx
            gradient[j, 1] += fy
            gradient[j, 2] += fz
            if virial:
                of_shift[s, 0] += fx
                of_shift[s, 1] += fy
                of_shift[s, 2] += fz
        gradient[i, 0] -= gx
        gradient[i, 1] -= gy
        gradient[i, 2] -= gz
    return energy


@compiled_loop()
def sort_pairs(pairs, image, distances, cutoffs, species, count):
    """Sort pairs by their first atom and leave out those beyond the cutoff of their species.

    Parameters
    ----------
    pairs : numpy.ndarray, shape (P, 2)
    image : numpy.ndarray, int32, shape (P,)
    distances : numpy.ndarray, shape (P,), Å
    cutoffs : numpy.ndarray, shape (S, S), Å
        Of each two species; 0 where they do not interact.
    species : numpy.ndarray, shape (N,)
    count : int
        N.

    Returns
    -------
    pointer : numpy.ndarray, int32, shape (N + 1,)
        Where the pairs of each first atom begin.
    pairs, image, kind : numpy.ndarray, int32
        ``kind`` is the element of ``cutoffs``.
    """
    start = np.zeros(count + 1, np.int64)
    for p in range(pairs.shape[0]):
        if distances[p] < cutoffs[species[pairs[p, 0]], species[pairs[p, 1]]]:
            start[pairs[p, 0] + 1] += 1
    start = np.cumsum(start)
    pointer = start.astype(np.int32)
    total = start[count]
    sorted_pairs = np.empty((2, total), np.int32)
    sorted_image, kind = np.empty(total, np.int32), np.empty(total, np.int32)
    for p in range(pairs.shape[0]):
        i, j = pairs[p, 0], pairs[p, 1]
        if distances[p] < cutoffs[species[i], species[j]]:
            place = start[i]
            start[i] += 1
            sorted_pairs[0, place], sorted_pairs[1, place] = i, j
            sorted_image[place] = image[p]
            kind[place] = species[i] * cutoffs.shape[0] + species[j]
    return pointer, sorted_pairs, sorted_image, kind
