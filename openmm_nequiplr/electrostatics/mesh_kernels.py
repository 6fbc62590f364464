"""Compiled loops of :mod:`.mesh` for the CPU (numba); the same sums in torch are in :mod:`.mesh`.

All functions run on one thread and release the interpreter lock. N atoms, P pairs, spline order p,
mesh of M1 × M2 × M3 points.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


def _compiled(**options):
    """``njit``, with the machine code kept on disk where there is a place to write."""

    def decorate(function):
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # numba found no directory that it may write to
            return njit(nogil=True, **options)(function)

    return decorate


@_compiled()
def spline_weights(coordinates, shape, order):
    """Cardinal B-splines around each atom.

    Parameters
    ----------
    coordinates : numpy.ndarray, shape (N, 3)
        In mesh spacings.
    shape : numpy.ndarray, int64, shape (3,)
    order : int

    Returns
    -------
    index : numpy.ndarray, int32, shape (N, 3, p)
        Mesh points, wrapped into the cell.
    weight, slope : numpy.ndarray, shape (N, 3, p)
        M_p and dM_p/dx, x in mesh spacings (Essmann et al. 1995, eqs. 4.1 and 4.2).
    """
    count = coordinates.shape[0]
    index = np.empty((count, 3, order), np.int32)
    weight = np.zeros((count, 3, order))
    slope = np.empty((count, 3, order))
    for i in range(count):
        for d in range(3):
            x = coordinates[i, d]
            floor = math.floor(x)
            f = x - floor
            w = weight[i, d]
            w[0] = 1.0 - f
            w[1] = f
            for n in range(3, order + 1):
                if n == order:
                    slope[i, d, 0] = -w[0]
                    for j in range(1, order - 1):
                        slope[i, d, j] = w[j - 1] - w[j]
                    slope[i, d, order - 1] = w[order - 2]
                scale = 1.0 / (n - 1)
                w[n - 1] = scale * f * w[n - 2]
                for j in range(n - 2, 0, -1):
                    w[j] = scale * ((f + n - 1 - j) * w[j - 1] + (1 - f + j) * w[j])
                w[0] = scale * (1.0 - f) * w[0]
            for j in range(order):
                index[i, d, j] = (np.int64(floor) + j) % shape[d]
    return index, weight, slope


@_compiled(fastmath=True)
def spread(index, weight, charges, mesh):
    """Add charges, shape (N,), to ``mesh``, shape (M1, M2, M3)."""
    order = weight.shape[2]
    for i in range(charges.shape[0]):
        z, wz = index[i, 2], weight[i, 2]
        run = z[order - 1] - z[0] == order - 1
        start = z[0]
        for a in range(order):
            first = charges[i] * weight[i, 0, a]
            for b in range(order):
                factor = first * weight[i, 1, b]
                line = mesh[index[i, 0, a], index[i, 1, b]]
                if run:
                    part = line[start : start + order]
                    for c in range(order):
                        part[c] += factor * wz[c]
                else:
                    for c in range(order):
                        line[z[c]] += factor * wz[c]


@_compiled(fastmath=True)
def gather(index, weight, mesh, result):
    """Add the interpolated ``mesh`` to ``result``, shape (N,)."""
    order = weight.shape[2]
    for i in range(result.shape[0]):
        z, wz = index[i, 2], weight[i, 2]
        run = z[order - 1] - z[0] == order - 1
        start = z[0]
        total = 0.0
        for a in range(order):
            plane = 0.0
            for b in range(order):
                line = mesh[index[i, 0, a], index[i, 1, b]]
                row = 0.0
                if run:
                    part = line[start : start + order]
                    for c in range(order):
                        row += wz[c] * part[c]
                else:
                    for c in range(order):
                        row += wz[c] * line[z[c]]
                plane += weight[i, 1, b] * row
            total += weight[i, 0, a] * plane
        result[i] += total


@_compiled(fastmath=True)
def gather_gradient(index, weight, slope, mesh):
    """Gradient of the interpolated ``mesh`` per mesh spacing, shape (N, 3)."""
    count, _, order = weight.shape
    result = np.zeros((count, 3))
    for i in range(count):
        z, wz, sz = index[i, 2], weight[i, 2], slope[i, 2]
        gx, gy, gz = 0.0, 0.0, 0.0
        for a in range(order):
            wx, sx = weight[i, 0, a], slope[i, 0, a]
            for b in range(order):
                wy, sy = weight[i, 1, b], slope[i, 1, b]
                line = mesh[index[i, 0, a], index[i, 1, b]]
                value, change = 0.0, 0.0
                for c in range(order):
                    point = line[z[c]]
                    value += wz[c] * point
                    change += sz[c] * point
                gx += sx * wy * value
                gy += wx * sy * value
                gz += wx * wy * change
        result[i, 0], result[i, 1], result[i, 2] = gx, gy, gz
    return result


@_compiled()
def pair_values(positions, shifts, pairs, image, kind, table, scales, slots, data):
    """Write the pair coefficients into the values of the sparse matrix.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    shifts : numpy.ndarray, shape (I, 3), Å
        Translations of the images that occur.
    pairs : numpy.ndarray, int32, shape (P, 2)
    image, kind : numpy.ndarray, shape (P,)
        Rows of ``shifts`` and of ``table``.
    table : numpy.ndarray, shape (kinds, points, 2), 1/Å and 1/Å²
        Coefficient over k_e, and its slope, at equidistant distances.
    scales : tuple of 3 float
        Inverse distance of the points in 1/Å; cutoff in Å; k_e in eV Å/e².
    slots : numpy.ndarray, int32, shape (P, 2)
        Where the two mirror elements lie in ``data``.
    data : numpy.ndarray, shape (2P,), eV/e²
    """
    inverse_step, cutoff, constant = scales
    step = 1.0 / inverse_step
    for p in range(pairs.shape[0]):
        i, j, s = pairs[p, 0], pairs[p, 1], image[p]
        x = positions[j, 0] - positions[i, 0] + shifts[s, 0]
        y = positions[j, 1] - positions[i, 1] + shifts[s, 1]
        z = positions[j, 2] - positions[i, 2] + shifts[s, 2]
        r = math.sqrt(x * x + y * y + z * z)
        value = 0.0
        if r < cutoff:
            place = r * inverse_step
            n = int(place)
            t = place - n
            lower, upper = table[kind[p], n], table[kind[p], n + 1]
            u = 1.0 - t
            value = u * u * ((1.0 + 2.0 * t) * lower[0] + t * step * lower[1])
            value += t * t * ((1.0 + 2.0 * u) * upper[0] - u * step * upper[1])
        data[slots[p, 0]] = constant * value
        data[slots[p, 1]] = constant * value


@_compiled()
def pair_gradient(
    positions, shifts, pairs, image, kind, table, scales, charges, gradient, of_shift
):
    """Pair energy Σ c(r) (q_i q_j − p_i p_j) in eV; arguments as :func:`pair_values`.

    ``charges``, shape (N, 2), holds q and p. Adds dE/dx to ``gradient``, shape (N, 3), and
    dE/d(shift) to ``of_shift``, shape (I, 3), eV/Å.
    """
    inverse_step, cutoff, constant = scales
    step = 1.0 / inverse_step
    energy = 0.0
    for p in range(pairs.shape[0]):
        i, j, s = pairs[p, 0], pairs[p, 1], image[p]
        x = positions[j, 0] - positions[i, 0] + shifts[s, 0]
        y = positions[j, 1] - positions[i, 1] + shifts[s, 1]
        z = positions[j, 2] - positions[i, 2] + shifts[s, 2]
        r = math.sqrt(x * x + y * y + z * z)
        if r >= cutoff:
            continue
        place = r * inverse_step
        n = int(place)
        t = place - n
        lower, upper = table[kind[p], n], table[kind[p], n + 1]
        u = 1.0 - t
        product = charges[i, 0] * charges[j, 0] - charges[i, 1] * charges[j, 1]
        product *= constant
        value = u * u * ((1.0 + 2.0 * t) * lower[0] + t * step * lower[1])
        value += t * t * ((1.0 + 2.0 * u) * upper[0] - u * step * upper[1])
        energy += product * value
        slope = 6.0 * t * u * (upper[0] - lower[0]) * inverse_step
        slope += u * (1.0 - 3.0 * t) * lower[1] + t * (3.0 * t - 2.0) * upper[1]
        factor = product * slope / r
        fx, fy, fz = factor * x, factor * y, factor * z
        gradient[i, 0] -= fx
        gradient[i, 1] -= fy
        gradient[i, 2] -= fz
        gradient[j, 0] += fx
        gradient[j, 1] += fy
        gradient[j, 2] += fz
        of_shift[s, 0] += fx
        of_shift[s, 1] += fy
        of_shift[s, 2] += fz
    return energy


@_compiled()
def sort_pairs(pairs, image, needed, species, count):
    """Sort pairs by their first atom and leave out those of species that do not interact.

    Parameters
    ----------
    pairs : numpy.ndarray, shape (P, 2)
    image : numpy.ndarray, int32, shape (P,)
    needed : numpy.ndarray, bool, shape (S, S)
        Which species interact.
    species : numpy.ndarray, shape (N,)
    count : int
        N.

    Returns
    -------
    pairs, image, kind : numpy.ndarray, int32
        ``kind`` is the element of ``needed``.
    """
    start = np.zeros(count + 1, np.int64)
    for p in range(pairs.shape[0]):
        if needed[species[pairs[p, 0]], species[pairs[p, 1]]]:
            start[pairs[p, 0] + 1] += 1
    start = np.cumsum(start)
    total = start[count]
    sorted_pairs = np.empty((total, 2), np.int32)
    sorted_image, kind = np.empty(total, np.int32), np.empty(total, np.int32)
    for p in range(pairs.shape[0]):
        i, j = pairs[p, 0], pairs[p, 1]
        if needed[species[i], species[j]]:
            place = start[i]
            start[i] += 1
            sorted_pairs[place, 0], sorted_pairs[place, 1] = i, j
            sorted_image[place] = image[p]
            kind[place] = species[i] * needed.shape[0] + species[j]
    return sorted_pairs, sorted_image, kind


@_compiled()
def sparse_rows(pairs, count):
    """Row pointers, columns and slots of a symmetric sparse matrix with elements at ``pairs``.

    Returns
    -------
    pointer : numpy.ndarray, int32, shape (N + 1,)
    column : numpy.ndarray, int32, shape (2P,)
    slots : numpy.ndarray, int32, shape (P, 2)
        Where elements (i, j) and (j, i) of each pair lie in ``column``.
    """
    pointer = np.zeros(count + 1, np.int32)
    for p in range(pairs.shape[0]):
        pointer[pairs[p, 0] + 1] += 1
        pointer[pairs[p, 1] + 1] += 1
    for i in range(count):
        pointer[i + 1] += pointer[i]
    filled = pointer[:-1].copy()
    column = np.empty(2 * pairs.shape[0], np.int32)
    slots = np.empty((pairs.shape[0], 2), np.int32)
    for p in range(pairs.shape[0]):
        for side in range(2):
            row = pairs[p, side]
            slots[p, side] = filled[row]
            column[filled[row]] = pairs[p, 1 - side]
            filled[row] += 1
    return pointer, column, slots
