"""Triton kernels of :mod:`.mesh`.

N atoms, spline order P (Q is the next power of two), a mesh of M1 × M2 × M3 points. A program
processes one atom and one plane of its stencil at a time. Spreading uses atomic additions, whose
order varies, so the last digits of the sums differ from run to run.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from .triton_launch import generated, launch

#: Number of coordinates per program.
_BLOCK = 128


def _spline_source(order: int) -> str:
    """Source of the stencil kernel of a spline order (Essmann et al. 1995, eqs. 4.1 and 4.2)."""
    weights, slopes = ["1.0 - f", "f"], []
    lines = []
    for n in range(2, order + 1):
        if n > 2:
            low, high = ["0.0", *weights], [*weights, "0.0"]
            slopes = [f"{low[j]} - {high[j]}" for j in range(n)]
            rising = [f"(f + {n - 1 - j}.0) * {low[j]}" for j in range(n)]
            falling = [f"({1 + j}.0 - f) * {high[j]}" for j in range(n)]
            weights = [f"({rising[j]} + {falling[j]}) * {1.0 / (n - 1)!r}" for j in range(n)]
        lines += [f"w{n}_{j} = {weight}" for j, weight in enumerate(weights)]
        weights = [f"w{n}_{j}" for j in range(n)]
    for j in range(order):
        lines += [
            f"tl.store(index + k * P + {j}, tl.where(first + {j} < size, first + {j}, "
            f"first + {j} - size), mask=live)",
            f"tl.store(weight + k * P + {j}, {weights[j]}, mask=live)",
            f"tl.store(slope + k * P + {j}, {slopes[j]}, mask=live)",
        ]
    return _SPLINES + "".join(f"    {line}\n" for line in lines)


_SPLINES = """import triton
import triton.language as tl

@triton.jit
def splines(place, index, weight, slope, count, M1, M2, M3, P: tl.constexpr, BLOCK: tl.constexpr):
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = k < count
    x = tl.load(place + k, mask=live, other=0.0)
    below = tl.floor(x)
    f = x - below
    size = tl.where(k % 3 == 0, M1, tl.where(k % 3 == 1, M2, M3))
    first = (below - size * tl.floor(below / size)).to(tl.int32)
    first = tl.minimum(tl.maximum(first, 0), size - 1)  # positions may not be finite
"""


@functools.cache
def _splines(order: int) -> Any:
    return generated(_spline_source(order))["splines"]


@triton.jit
def _stencil_axis(index, weight, i, AXIS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr):
    """Mesh points and weights of atom i along an axis, padded to Q."""
    b = tl.arange(0, Q)
    at = i * (3 * P) + AXIS * P + b
    return (
        tl.load(index + at, mask=b < P, other=0),
        tl.load(weight + at, mask=b < P, other=0.0),
    )


@triton.jit
def spread_charges(index, weight, charges, mesh, M2, M3, P: tl.constexpr, Q: tl.constexpr):
    """Add the charge of an atom, float64, to ``mesh``."""
    i = tl.program_id(0)
    iy, wy = _stencil_axis(index, weight, i, 1, P, Q)
    iz, wz = _stencil_axis(index, weight, i, 2, P, Q)
    b = tl.arange(0, Q)
    live = (b < P)[:, None] & (b < P)[None, :]
    charge = tl.load(charges + i).to(weight.dtype.element_ty)
    plane = charge * wy[:, None] * wz[None, :]
    place = iy[:, None] * M3 + iz[None, :]
    for a in range(P):
        x = tl.load(index + i * (3 * P) + a) * (M2 * M3)
        value = tl.load(weight + i * (3 * P) + a) * plane
        tl.atomic_add(mesh + x + place, value, mask=live, sem="relaxed")


@triton.jit
def gather_values(index, weight, mesh, result, M2, M3, P: tl.constexpr, Q: tl.constexpr):
    """Write the mesh interpolated at an atom to ``result``, float64."""
    i = tl.program_id(0)
    iy, wy = _stencil_axis(index, weight, i, 1, P, Q)
    iz, wz = _stencil_axis(index, weight, i, 2, P, Q)
    b = tl.arange(0, Q)
    live = (b < P)[:, None] & (b < P)[None, :]
    place = iy[:, None] * M3 + iz[None, :]
    rows = tl.full((Q, Q), 0.0, mesh.dtype.element_ty)
    for a in range(P):
        x = tl.load(index + i * (3 * P) + a) * (M2 * M3)
        points = tl.load(mesh + x + place, mask=live, other=0.0)
        rows += tl.load(weight + i * (3 * P) + a) * points
    tl.store(result + i, tl.sum(tl.sum(rows * wy[:, None] * wz[None, :], 1), 0).to(tl.float64))


@triton.jit
def gather_slopes(index, weight, slope, mesh, result, M2, M3, P: tl.constexpr, Q: tl.constexpr):
    """Write the mesh and its gradient at an atom to ``result``, four float64 numbers."""
    i = tl.program_id(0)
    iy, wy = _stencil_axis(index, weight, i, 1, P, Q)
    iz, wz = _stencil_axis(index, weight, i, 2, P, Q)
    iy, sy = _stencil_axis(index, slope, i, 1, P, Q)
    iz, sz = _stencil_axis(index, slope, i, 2, P, Q)
    b = tl.arange(0, Q)
    live = (b < P)[:, None] & (b < P)[None, :]
    place = iy[:, None] * M3 + iz[None, :]
    rows = tl.full((Q, Q), 0.0, mesh.dtype.element_ty)
    changes = tl.full((Q, Q), 0.0, mesh.dtype.element_ty)
    for a in range(P):
        x = tl.load(index + i * (3 * P) + a) * (M2 * M3)
        points = tl.load(mesh + x + place, mask=live, other=0.0)
        rows += tl.load(weight + i * (3 * P) + a) * points
        changes += tl.load(slope + i * (3 * P) + a) * points
    value = tl.sum(tl.sum(rows * wy[:, None] * wz[None, :], 1), 0)
    by_x = tl.sum(tl.sum(changes * wy[:, None] * wz[None, :], 1), 0)
    by_y = tl.sum(tl.sum(rows * sy[:, None] * wz[None, :], 1), 0)
    by_z = tl.sum(tl.sum(rows * wy[:, None] * sz[None, :], 1), 0)
    tl.store(result + 4 * i, value.to(tl.float64))
    tl.store(result + 4 * i + 1, by_x.to(tl.float64))
    tl.store(result + 4 * i + 2, by_y.to(tl.float64))
    tl.store(result + 4 * i + 3, by_z.to(tl.float64))


def stencil(place: torch.Tensor, shape: list[int], order: int, single: bool) -> list[torch.Tensor]:
    """Mesh points, int32, and weights and slopes, shape (N, 3, P) each."""
    dtype, sizes = torch.float32 if single else torch.float64, (len(place), 3, order)
    state = [place.new_empty(sizes, dtype=t) for t in (torch.int32, dtype, dtype)]
    count = 3 * len(place)
    arguments = place.contiguous(), *state, count, *shape
    programs, constants = triton.cdiv(count, _BLOCK), {"P": order, "BLOCK": _BLOCK}
    launch(_splines(order), programs, *arguments, warps=_BLOCK // 32, **constants)
    return state


def _run(kernel: Any, state: list[torch.Tensor], *arguments: Any) -> None:
    """Run a kernel over all atoms; the last argument is the shape of the mesh."""
    *tensors, shape = arguments
    order = state[0].shape[2]
    constants = {"P": order, "Q": triton.next_power_of_2(order)}
    launch(kernel, len(state[0]), *state, *tensors, *shape[1:], **constants)


def spread(state: list[torch.Tensor], charges: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Charges on the mesh, shape (M1, M2, M3)."""
    mesh = torch.zeros(shape, dtype=state[1].dtype, device=charges.device)
    _run(spread_charges, state[:2], charges.contiguous(), mesh, shape)
    return mesh


def gather(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """The mesh at the atoms, shape (N,)."""
    result = mesh.new_empty(len(state[0]), dtype=torch.float64)
    _run(gather_values, state[:2], mesh.contiguous(), result, mesh.shape)
    return result


def gather_gradient(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """The mesh and its gradients per mesh spacing at the atoms, shape (N, 4)."""
    result = mesh.new_empty(len(state[0]), 4, dtype=torch.float64)
    _run(gather_slopes, state, mesh.contiguous(), result, mesh.shape)
    return result
