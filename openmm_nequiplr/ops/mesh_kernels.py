"""Compiled loops of :mod:`.mesh` for the CPU (numba).

The loops release the interpreter lock and run in threads, each over a block of atoms. N atoms,
spline order p, a mesh of M1 × M2 × M3 points.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numba import config as numba_config
from numba import float64, from_dtype, int32, int64
from numba.cpython.unsafe import tuple as unsafe_tuple
from numba.np.unsafe import ndarray as unsafe
from numpy.polynomial.polynomial import polyadd, polymul, polysub

from ..jit import compiled_loop
from ..threads import each_block, even_bounds

# Fewest mesh points and atoms for which another thread pays.
_POINTS_PER_THREAD, _ATOMS_PER_THREAD = 40_000, 1500

#: Convert a short array to a tuple.
_to_registers: Any = unsafe.to_fixed_tuple
#: Replace one element of a tuple.
_put: Any = unsafe_tuple.tuple_setitem


def spline_polynomials(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Polynomials of cardinal B-splines and their slopes (Essmann et al. 1995, eqs. 4.1 and 4.2).

    Parameters
    ----------
    order : int
        Spline order p, at least 3.

    Returns
    -------
    numpy.ndarray, shapes (p, p) and (p − 1, p)
        Coefficients, lowest power first, of the weight of each of the p mesh points around an atom
        and of its derivative, in the distance f of the atom from the mesh point below it.
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
    """Enable LLVM's vectorisation of straight-line code, which numba disables."""
    config: Any = numba_config
    before = config.SLP_VECTORIZE
    config.SLP_VECTORIZE = 1
    try:
        yield
    finally:
        config.SLP_VECTORIZE = before


@functools.cache
def stencil_kernels(order, dtype):
    """Loops over mesh points, compiled for one spline order and dtype.

    Common arguments: ``index``, ``weight`` and ``slope``, shape (N, 3, p), are the mesh points
    around an atom (int32, wrapped into the cell) and M_p and dM_p/dx there, x in mesh spacings.
    ``mesh`` has the shape (M1, M2, M3 + p − 1): the last p − 1 points of a line repeat its first
    ones, so that a stencil is contiguous. ``begin`` and ``end`` are the first atom and the one
    after the last.

    LLVM vectorises straight-line code only if no write can change what is read. The points of a
    line are therefore loaded into registers before a row of sums is written, and the sums are kept
    for each line of a plane so that they are independent of one another.

    Returns
    -------
    splines, spread, gather, gather_gradient : callable
    """
    value, change = spline_polynomials(order)
    steps = np.uintp(order)  # unsigned indices avoid the check for negative ones
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
    def spread(index, weight, charges, mesh, begin, end):
        """Add the charges, shape (N,), to ``mesh``."""
        _, width, depth = mesh.shape
        flat = mesh.reshape(-1)
        for i in range(begin, end):
            start, wz = np.uintp(index[i, 2, 0]), _to_registers(weight[i, 2], order)
            for a in range(steps):
                plane = index[i, 0, a] * width
                first = charges[i] * weight[i, 0, a]
                for b in range(steps):
                    line = np.uintp((plane + index[i, 1, b]) * depth) + start
                    factor = first * weight[i, 1, b]
                    for c in range(steps):
                        flat[line + c] += factor * wz[c]

    @compiled_loop(fastmath=True)
    def gather(index, weight, mesh, result, begin, end):
        """Write the interpolated ``mesh`` into ``result``, float64, shape (N,)."""
        _, width, depth = mesh.shape
        flat = mesh.reshape(-1)
        rows = np.empty((order, order), mesh.dtype)
        for i in range(begin, end):
            start, wz = np.uintp(index[i, 2, 0]), weight[i, 2]
            rows[:] = 0.0
            for a in range(steps):
                plane = index[i, 0, a] * width
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

    @compiled_loop(fastmath=True)
    def gather_gradient(index, weight, slope, mesh, result, begin, end):
        """Write the interpolated ``mesh`` and its gradient into ``result``, float64, shape (N, 4).

        The gradient, columns 1 to 3, is per mesh spacing.
        """
        _, width, depth = mesh.shape
        flat = mesh.reshape(-1)
        zero = mesh.dtype.type(0.0)
        rows, changes = np.empty((order, order), mesh.dtype), np.empty((order, order), mesh.dtype)
        for i in range(begin, end):
            start, wz, sz = np.uintp(index[i, 2, 0]), weight[i, 2], slope[i, 2]
            rows[:], changes[:] = 0.0, 0.0
            for a in range(steps):
                plane = index[i, 0, a] * width
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
        weights, mesh = real[:, :, ::1], real[:, :, ::1]
        common, block = (int32[:, :, ::1], weights), (int64, int64)
        spread.compile((*common, real[::1], mesh, *block))
        gather.compile((*common, mesh, float64[::1], *block))
        gather_gradient.compile((*common, weights, mesh, float64[:, ::1], *block))
    return splines, spread, gather, gather_gradient


@compiled_loop(fastmath=True)
def join_meshes(meshes, density, begin, end):
    """Write the sum of the threads' meshes to the lines ``begin`` to ``end`` of ``density``.

    The lines of ``meshes``, shape (T, lines, M3 + p − 1), extend beyond the cell; the values there
    are added to the first points of ``density``, shape (lines, M3).
    """
    depth = density.shape[1]
    for line in range(begin, end):
        for z in range(depth):
            density[line, z] = meshes[0, line, z]
        for t in range(1, meshes.shape[0]):
            for z in range(depth):
                density[line, z] += meshes[t, line, z]
        for t in range(meshes.shape[0]):
            for z in range(meshes.shape[2] - depth):
                density[line, z] += meshes[t, line, depth + z]


def _loops(weight: torch.Tensor) -> Any:
    return stencil_kernels(weight.shape[2], np.float32 if weight.dtype == torch.float32 else float)


def _bounds(count: int) -> list[int]:
    return even_bounds(count, _ATOMS_PER_THREAD)


def stencil(place: torch.Tensor, shape: list[int], order: int, single: bool) -> list[torch.Tensor]:
    """Mesh points, int32, and weights and slopes, shape (N, 3, p) each."""
    dtype = torch.float32 if single else torch.float64
    state = [torch.empty(len(place), 3, order, dtype=t) for t in (torch.int32, dtype, dtype)]
    splines = _loops(state[1])[0]
    arrays = place.numpy(), np.array(shape), *(t.numpy() for t in state)
    each_block(_bounds(len(place)), lambda *block: splines(*arrays, *block))
    return state


def spread(state: list[torch.Tensor], charges: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Charges on the mesh, shape (M1, M2, M3)."""
    index, weight = state[0].numpy(), state[1].numpy()
    loop, source = _loops(state[1])[1], charges.numpy().astype(weight.dtype)
    height, width, depth = shape
    blocks = list(itertools.pairwise(_bounds(len(source))))
    meshes = np.zeros((len(blocks), height, width, depth + weight.shape[2] - 1), weight.dtype)
    each_block(
        range(len(blocks) + 1),
        lambda number, _: loop(index, weight, source, meshes[number], *blocks[number]),
    )
    density = np.empty((height, width, depth), weight.dtype)
    parts, lines = meshes.reshape(len(blocks), height * width, -1), density.reshape(-1, depth)
    bounds = even_bounds(len(lines), _POINTS_PER_THREAD // depth)
    each_block(bounds, lambda *block: join_meshes(parts, lines, *block))
    return torch.from_numpy(density)


def _continued(state: list[torch.Tensor], mesh: torch.Tensor) -> np.ndarray:
    """Mesh whose lines are extended by copies of their first points."""
    beyond = state[1].shape[2] - 1
    return torch.cat((mesh, mesh[..., :beyond]), dim=-1).to(state[1].dtype).numpy()


def gather(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """The mesh at the atoms, shape (N,)."""
    result = np.empty(len(state[0]))
    loop = _loops(state[1])[2]
    arrays = state[0].numpy(), state[1].numpy(), _continued(state, mesh), result
    each_block(_bounds(len(result)), lambda *block: loop(*arrays, *block))
    return torch.from_numpy(result)


def gather_gradient(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """The mesh and its gradients per mesh spacing at the atoms, shape (N, 4)."""
    result = np.empty((len(state[0]), 4))
    loop = _loops(state[1])[3]
    arrays = *(t.numpy() for t in state), _continued(state, mesh), result
    each_block(_bounds(len(result)), lambda *block: loop(*arrays, *block))
    return torch.from_numpy(result)
