"""Compiled loop of :mod:`.image_sums` for the CPU (numba)."""

from __future__ import annotations

import math

import torch

from ..jit import compiled_loop

# Distance in widths beyond which a Gaussian pair equals a point-charge pair to round-off.
_FAR = 8.5


@compiled_loop(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _add_images(places, cell, images, widths, eta, cutoff, strain, result):
    """Write the sums over images, shape (4 or 10, N, N); arguments as for the operator."""
    front, root = math.sqrt(2.0 / math.pi), math.sqrt(2.0)
    for i in range(places.shape[0]):
        for j in range(i, places.shape[0]):
            gamma = math.sqrt(widths[i] * widths[i] + widths[j] * widths[j])
            a = places[j, 0] - places[i, 0]
            b = places[j, 1] - places[i, 1]
            c = places[j, 2] - places[i, 2]
            a, b, c = a - round(a), b - round(b), c - round(c)
            x0 = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
            y0 = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
            z0 = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
            total, gx, gy, gz = 0.0, 0.0, 0.0, 0.0
            xx, yy, zz, yz, xz, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for k in range(images.shape[0]):
                x, y, z = x0 + images[k, 0], y0 + images[k, 1], z0 + images[k, 2]
                square = x * x + y * y + z * z
                if square >= cutoff * cutoff or square == 0.0:
                    continue
                r = math.sqrt(square)
                value = math.erfc(r / (root * eta))
                slope = -front / eta * math.exp(-0.5 * square / (eta * eta))
                if r < _FAR * gamma:
                    value -= math.erfc(r / (root * gamma))
                    slope += front / gamma * math.exp(-0.5 * square / (gamma * gamma))
                value /= r
                slope = (slope - value) / square
                total += value
                gx -= slope * x
                gy -= slope * y
                gz -= slope * z
                if strain:
                    xx += slope * x * x
                    yy += slope * y * y
                    zz += slope * z * z
                    yz += slope * y * z
                    xz += slope * x * z
                    xy += slope * x * y
            if i == j:
                gx, gy, gz = 0.0, 0.0, 0.0
            result[0, i, j] = result[0, j, i] = total
            result[1, i, j], result[1, j, i] = gx, -gx
            result[2, i, j], result[2, j, i] = gy, -gy
            result[3, i, j], result[3, j, i] = gz, -gz
            if strain:
                result[4, i, j] = result[4, j, i] = xx
                result[5, i, j] = result[5, j, i] = yy
                result[6, i, j] = result[6, j, i] = zz
                result[7, i, j] = result[7, j, i] = yz
                result[8, i, j] = result[8, j, i] = xz
                result[9, i, j] = result[9, j, i] = xy


def sums(
    places: torch.Tensor,
    cell: torch.Tensor,
    images: torch.Tensor,
    widths: torch.Tensor,
    eta: float,
    cutoff: float,
    strain: bool,
) -> torch.Tensor:
    """Sums over images, computed in one thread."""
    count = len(places)
    result = places.new_empty(10 if strain else 4, count, count)
    arrays = (t.contiguous().numpy() for t in (places, cell, images, widths))
    _add_images(*arrays, eta, cutoff, strain, result.numpy())
    return result
