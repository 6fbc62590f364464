"""Triton kernels of :mod:`.pairs`.

They run over the rows of the symmetric sparse matrix, which contains each pair twice. A program
sums one row, and no two programs write to the same address. N atoms, P pairs, I images.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from .pair_formulas import pair_products, pair_vectors, symmetric_rows
from .triton_launch import launch

#: Number of entries that a program processes at a time.
_BLOCK = 128


@triton.jit
def _vectors(positions, images, number, sign, i, j):
    """Vectors from atoms i to images of atoms j, Å, in three components."""
    x = tl.load(positions + 3 * j) - tl.load(positions + 3 * i)
    y = tl.load(positions + 3 * j + 1) - tl.load(positions + 3 * i + 1)
    z = tl.load(positions + 3 * j + 2) - tl.load(positions + 3 * i + 2)
    x += sign * tl.load(images + 3 * number)
    y += sign * tl.load(images + 3 * number + 1)
    z += sign * tl.load(images + 3 * number + 2)
    return x, y, z


@triton.jit
def pair_coefficients(
    first, second, slots, positions, images, image, gammas, kind,
    pair_values, pair_slopes, values, slopes, pairs,
    BARE: tl.constexpr, LIMIT: tl.constexpr, CONSTANT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write c and 2 dc/d(r²) of the pairs and of the entries of the rows."""
    REAL: tl.constexpr = values.dtype.element_ty
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = k < 2 * pairs
    slot = tl.load(slots + k, mask=live, other=0)
    p = tl.where(slot < pairs, slot, slot - pairs)
    i = tl.load(first + p, mask=live, other=0)
    j = tl.load(second + p, mask=live, other=0)
    x, y, z = _vectors(positions, images, tl.load(image + p, mask=live, other=0), 1.0, i, j)
    square = x * x + y * y + z * z
    near = live & (square < LIMIT)
    r = tl.sqrt(tl.where(near, square, 1.0)).to(REAL)
    own = 0.7071067811865476 / tl.load(gammas + tl.load(kind + p, mask=live, other=0)).to(REAL)
    # (2/√π) a exp(−a²r²) is the derivative of erf(a r)
    slope = own * tl.exp(-(r * own) * (r * own)) - BARE * tl.exp(-(r * BARE) * (r * BARE))
    value = tl.where(near, CONSTANT * (tl.erf(r * own) - tl.erf(r * BARE)) / r, 0.0)
    slope = tl.where(near, (CONSTANT * 1.1283791670955126 * slope - value) / (r * r), 0.0)
    tl.store(pair_values + p, value, mask=live & (slot < pairs))
    tl.store(pair_slopes + p, slope, mask=live & (slot < pairs))
    tl.store(values + k, value, mask=live)
    tl.store(slopes + k, slope, mask=live)


@triton.jit
def row_products(
    pointer, column, values, charges, diagonal, added, result,
    MORE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the potential of the pairs at an atom to ``result``, float64, plus optional terms."""
    i = tl.program_id(0)
    end = tl.load(pointer + i + 1)
    total = tl.full((BLOCK,), 0.0, values.dtype.element_ty)
    for begin in range(tl.load(pointer + i), end, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        live = k < end
        j = tl.load(column + k, mask=live, other=0)
        charge = tl.load(charges + j, mask=live, other=0.0).to(values.dtype.element_ty)
        total += tl.load(values + k, mask=live, other=0.0) * charge
    potential = tl.sum(total).to(tl.float64)
    if MORE:
        potential += tl.load(diagonal + i) * tl.load(charges + i) + tl.load(added + i)
    tl.store(result + i, potential)


@triton.jit
def row_gradients(
    pointer, column, slots, values, slopes, positions, images, image, charges, subtracted,
    energy, gradient, pairs, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write half the energy of the pairs of an atom, and its gradient, float64."""
    i = tl.program_id(0)
    end = tl.load(pointer + i + 1)
    q, w = tl.load(charges + i), tl.load(subtracted + i)
    total = tl.full((BLOCK,), 0.0, tl.float64)
    by_x = tl.full((BLOCK,), 0.0, tl.float64)
    by_y = tl.full((BLOCK,), 0.0, tl.float64)
    by_z = tl.full((BLOCK,), 0.0, tl.float64)
    for begin in range(tl.load(pointer + i), end, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        live = k < end
        j = tl.load(column + k, mask=live, other=0)
        slot = tl.load(slots + k, mask=live, other=0)
        forward = slot < pairs
        number = tl.load(image + tl.where(forward, slot, slot - pairs), mask=live, other=0)
        x, y, z = _vectors(positions, images, number, tl.where(forward, 1.0, -1.0), i, j)
        product = q * tl.load(charges + j) - w * tl.load(subtracted + j)
        total += product * tl.load(values + k, mask=live, other=0.0)
        factor = product * tl.load(slopes + k, mask=live, other=0.0)
        by_x -= factor * x
        by_y -= factor * y
        by_z -= factor * z
    tl.store(energy + i, 0.5 * tl.sum(total))
    tl.store(gradient + 3 * i, tl.sum(by_x))
    tl.store(gradient + 3 * i + 1, tl.sum(by_y))
    tl.store(gradient + 3 * i + 2, tl.sum(by_z))


def rows(first: torch.Tensor, second: torch.Tensor, count: int) -> list[torch.Tensor]:
    """First and second atoms, and the symmetric sparse matrix, all int32."""
    return [each.to(torch.int32) for each in symmetric_rows(first, second, count)]


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
    """Coefficients c and 2 dc/d(r²) of the pairs and of the entries of the rows."""
    dtype = torch.float32 if single else torch.float64
    count = len(rows[0])
    sizes = count, count, 2 * count, 2 * count
    found = [positions.new_empty(size, dtype=dtype) for size in sizes]
    tensors = positions, images, image, gammas, kind
    launch(
        pair_coefficients,
        triton.cdiv(2 * count, _BLOCK),
        *(rows[0], rows[1], rows[4]),
        *(each.contiguous() for each in tensors),
        *found,
        count,
        BARE=math.sqrt(0.5) / eta,  # computed here, as a kernel would use float32
        LIMIT=cutoff * cutoff,
        CONSTANT=constant,
        BLOCK=_BLOCK,
    )
    return found


def product(
    rows: list[torch.Tensor],
    terms: list[torch.Tensor],
    charges: torch.Tensor,
    diagonal: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ_j c_ij q_j + d_i q_i + v_i, shape (N,)."""
    result = torch.empty_like(charges, memory_format=torch.contiguous_format)
    source, more = charges.contiguous(), [diagonal, added]
    others = [source if each is None else each.contiguous() for each in more]
    arguments = rows[2], rows[3], terms[2], source, *others, result
    launch(row_products, len(charges), *arguments, MORE=diagonal is not None, BLOCK=_BLOCK)
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
    count, entries = len(charges), rows[2:5]
    energy, by_position = positions.new_empty(count), positions.new_empty(count, 3)
    tensors = positions, images, image, charges, subtracted
    launch(
        row_gradients,
        count,
        *entries,
        *terms[2:],
        *(each.contiguous() for each in tensors),
        energy,
        by_position,
        len(rows[0]),
        BLOCK=_BLOCK,
    )
    by_image = torch.zeros_like(images)
    if virial:
        products = pair_products(rows, charges, subtracted) * terms[1]
        along = products.unsqueeze(-1) * pair_vectors(rows, positions, images, image)
        by_image = by_image.index_add(0, image, along)
    return [energy.sum(), by_position, by_image]
