"""Compiled loops of :mod:`.pairs` for the CPU (numba).

The loops release the interpreter lock and run in threads, each over a block of first atoms. N
atoms, P pairs that are sorted by the first atom, I images.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy.special import erf

from ..jit import compiled_loop
from ..threads import each_block, even_bounds
from .pair_formulas import pair_coefficients, pair_vectors

# Fewest atoms for which another thread pays: for coefficients and gradients, and for products.
_ATOMS_PER_THREAD, _PRODUCT_ATOMS_PER_THREAD = 500, 1500
# Largest total number of points and largest number of tables that pay.
_MOST_POINTS, _MOST_KINDS = 2e6, 300


@functools.lru_cache(maxsize=8)
def pair_table(
    gammas: tuple[float, ...], eta: float, cutoff: float, constant: float, number: Any
) -> tuple[np.ndarray, float] | None:
    """Table of the pair coefficients: cubic polynomials between equidistant r².

    The last polynomial is zero. The result is None if the table would be too large.

    Parameters
    ----------
    gammas : tuple of float, Å
    eta, cutoff : float, Å
    constant : float, eV Å/e²
    number : type
        NumPy type of the table.

    Returns
    -------
    table : numpy.ndarray, shape (kinds, points, 4), eV/e²
    inverse_step : float, 1/Å²
        Inverse spacing of the points.
    """
    step = 0.024 * min(gammas) ** 2  # relative error of the slopes: 1e-8
    points = int(cutoff**2 / step) + 2
    if len(gammas) > _MOST_KINDS or points * len(gammas) > _MOST_POINTS:
        return None
    squares = np.arange(points) * step
    r = np.sqrt(squares)
    table = np.zeros((len(gammas), points, 4))
    bare = _gaussian_pair(r, eta)
    for kind, gamma in enumerate(gammas):
        own = _gaussian_pair(r, gamma)
        value, slope = constant * (own[0] - bare[0]), constant * step * (own[1] - bare[1])
        rise = value[1:] - value[:-1]
        table[kind, :-1, 0], table[kind, :-1, 1] = value[:-1], slope[:-1]
        table[kind, :-1, 2] = 3.0 * rise - 2.0 * slope[:-1] - slope[1:]
        table[kind, :-1, 3] = slope[:-1] + slope[1:] - 2.0 * rise
    return table.astype(number), 1.0 / step


def _gaussian_pair(r: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """erf(r/√2w)/r and its derivative by r², accurate also for r ≪ w."""
    x = r / (math.sqrt(2.0) * width)
    near = x < 0.3
    safe = np.where(near, width, r)
    front = math.sqrt(2.0 / math.pi) / width
    value = erf(x) / safe
    slope = 0.5 * (front * np.exp(-x * x) - value) / safe**2
    # Σ (−1)ⁿ x²ⁿ/(n! (2n + 1)) and its derivative by x²
    y = np.where(near, x * x, 0.0)
    series, bend = np.zeros_like(y), np.zeros_like(y)
    for n in range(9, -1, -1):
        term = (-1.0) ** n / (math.factorial(n) * (2 * n + 1))
        bend = bend * y + (n + 1) * ((-1.0) ** (n + 1) / (math.factorial(n + 1) * (2 * n + 3)))
        series = series * y + term
    value = np.where(near, front * series, value)
    return value, np.where(near, front * bend / (2.0 * width**2), slope)


@compiled_loop(fastmath=True)
def pair_values(
    positions, shifts, pairs, kind, limit, table, inverse_step, values, slopes, begin, end
):
    """Write coefficients c and 2 dc/d(r²) of the pairs of atoms ``begin`` to ``end``.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    shifts : numpy.ndarray, shape (I, 3), Å
        Translations of the images.
    pairs : tuple of 3 numpy.ndarray, int32
        Start of each atom's pairs, shape (N + 1,); second atom and row of ``shifts``, shape (P,).
    kind : numpy.ndarray, int32, shape (P,)
        Row of ``table`` of each pair.
    limit : float, Å²
        Square of the cutoff.
    table : numpy.ndarray, shape (kinds, points, 4), eV/e²
        Cubic polynomials in (r² − n step)/step for r² from n step on. The last one is zero and
        serves pairs beyond the cutoff, which is faster than an often mispredicted branch.
    inverse_step : float, 1/Å²
    values, slopes : numpy.ndarray, shape (P,), eV/e² and eV/(e Å)²
    """
    pointer, second, image = pairs
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
            place = square * inverse_step if square < limit else beyond
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
def pair_slopes(positions, shifts, pairs, values, slopes, charges, gradient, of_shift, begin, end):
    """Energy Σ c(r) (q_i q_j − p_i p_j), eV, of the pairs of atoms ``begin`` to ``end``.

    The columns of ``charges``, shape (N, 2), are q and p. dE/dx is added to ``gradient``, shape
    (N, 3), and dE/d(shift) to ``of_shift``, shape (I, 3), eV/Å, unless it is empty.
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


def _blocks(pointer: np.ndarray, fewest: int) -> list[tuple[int, int]]:
    """Ranges of first atoms with about equal numbers of pairs, one for each thread."""
    count = len(pointer) - 1
    threads = len(even_bounds(count, fewest)) - 1
    if threads == 1:
        return [(0, count)]
    parts = np.linspace(0, pointer[-1], threads + 1).astype(pointer.dtype)
    inner = np.searchsorted(pointer[:-1], parts[:-1]).tolist()
    return list(itertools.pairwise([*inner, count]))


def _each(blocks: list[tuple[int, int]], function: Any) -> list[Any]:
    return each_block(range(len(blocks) + 1), lambda number, _: function(*blocks[number]))


def _lists(rows: list[torch.Tensor], image: torch.Tensor) -> tuple[np.ndarray, ...]:
    return rows[2].numpy(), rows[1].numpy(), image.numpy()


def rows(first: torch.Tensor, second: torch.Tensor, count: int) -> list[torch.Tensor]:
    """First and second atoms, and start of the pairs of each first atom, all int32."""
    pointer = torch.searchsorted(first, torch.arange(count + 1, dtype=first.dtype))
    return [first.to(torch.int32), second.to(torch.int32), pointer.to(torch.int32)]


def terms(
    rows: list[torch.Tensor],
    positions: torch.Tensor,
    images: torch.Tensor,
    image: torch.Tensor,
    gammas: torch.Tensor,
    kind: torch.Tensor,
    eta: float,
    cutoff: float,
    constant: float,
    single: bool,
) -> list[torch.Tensor]:
    """Coefficients c and 2 dc/d(r²), shape (P,)."""
    number = np.float32 if single else np.float64
    table = pair_table(tuple(gammas.tolist()), eta, cutoff, constant, number)
    if table is None:
        vector = pair_vectors(rows, positions, images, image)
        exact = pair_coefficients(vector, gammas.index_select(0, kind), eta, cutoff)
        return [(constant * t).to(torch.float32 if single else torch.float64) for t in exact]
    values, slopes = np.empty((2, len(kind)), number)
    lists = _lists(rows, image)
    arrays = positions.numpy(), images.numpy(), lists, kind.numpy(), cutoff * cutoff, *table
    blocks = _blocks(lists[0], _ATOMS_PER_THREAD)
    _each(blocks, lambda *block: pair_values(*arrays, values, slopes, *block))
    return [torch.from_numpy(values), torch.from_numpy(slopes)]


def product(
    rows: list[torch.Tensor],
    terms: list[torch.Tensor],
    charges: torch.Tensor,
    diagonal: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ_j c_ij q_j + d_i q_i + v_i, shape (N,)."""
    lists, values = _lists(rows, rows[0]), terms[0].numpy()
    source = charges.numpy().astype(values.dtype)

    def part(*block: int) -> np.ndarray:
        result = np.zeros_like(source)
        pair_product(lists, values, source, result, *block)
        return result

    parts = _each(_blocks(lists[0], _PRODUCT_ATOMS_PER_THREAD), part)
    total = parts[0].astype(np.float64)
    for other in parts[1:]:
        total += other
    result = torch.from_numpy(total)
    if diagonal is not None and added is not None:
        result = torch.addcmul(result.add_(added), diagonal, charges)
    return result


def gradient(
    rows: list[torch.Tensor],
    terms: list[torch.Tensor],
    positions: torch.Tensor,
    images: torch.Tensor,
    image: torch.Tensor,
    charges: torch.Tensor,
    subtracted: torch.Tensor,
    virial: bool,
) -> list[torch.Tensor]:
    """Energy and its derivatives by positions and images."""
    lists, both = _lists(rows, image), torch.stack((charges, subtracted), dim=1).numpy()
    values, slopes = (t.numpy() for t in terms)
    arrays = positions.numpy(), images.numpy(), lists, values, slopes, both

    def part(*block: int) -> tuple[float, np.ndarray, np.ndarray]:
        by_position = np.zeros((len(both), 3))
        by_image = np.zeros((len(images) if virial else 0, 3))
        return pair_slopes(*arrays, by_position, by_image, *block), by_position, by_image

    parts = _each(_blocks(lists[0], _ATOMS_PER_THREAD), part)
    energy, by_position, by_image = (sum(x) for x in zip(*parts, strict=True))
    by_image = torch.from_numpy(by_image) if virial else torch.zeros_like(images)
    return [positions.new_tensor(energy), torch.from_numpy(by_position), by_image]
