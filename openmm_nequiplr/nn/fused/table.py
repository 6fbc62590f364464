"""The radial network of a convolution as a table: its weights depend on one number, the length."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from ..radial import RadialBasis

#: Shorter edges are not tabulated (a basis function is sin(r)/r), Å.
SHORTEST = 0.05
# Largest error of a table over the largest weight, by precision; of slopes, over the largest slope.
_TOLERANCE = {torch.float32: (2e-8, 2e-7), torch.float64: (1e-13, 2e-12)}
_MAX_BYTES, _MAX_INTERVALS = 2**28, 8192


@dataclass(frozen=True)
class RadialTable:
    """Quintic Hermite interpolation between K + 1 knots, exact to round-off.

    Parameters
    ----------
    knots : torch.Tensor, shape (K + 1, 3 weight_numel)
        Weights, their first derivatives times the step, and their second ones times its square.
    origin, step : float, Å
        First knot and distance between knots; the last knot is the cutoff, where all weights
        vanish.
    """

    knots: torch.Tensor
    origin: float
    step: float


def _sample(weights, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values and two derivatives of ``weights`` at lengths of shape (K,), each (K, weight_numel)."""
    one = torch.ones_like(length)

    def first(r):
        return torch.func.jvp(weights, (r,), (one,))

    (value, slope), (_, curvature) = torch.func.jvp(first, (length,), (one,))
    return value, slope, curvature


def interpolate(table: RadialTable, length: torch.Tensor) -> torch.Tensor:
    """Weights of shape (E, weight_numel) out of a table: the slow twin of the kernels' look-up."""
    x = (length - table.origin) / table.step
    row = x.long().clamp(max=table.knots.shape[0] - 2)
    t = (x - row).unsqueeze(-1)
    s = 1 - t
    v0, d0, c0 = table.knots[row].chunk(3, dim=1)
    v1, d1, c1 = table.knots[row + 1].chunk(3, dim=1)
    rise = t**3 * (10 - 15 * t + 6 * t * t)
    start = v0 * (1 - rise) + d0 * t * s**3 * (1 + 3 * t) + c0 * 0.5 * t * t * s**3
    return start + v1 * rise - d1 * t**3 * s * (4 - 3 * t) + c1 * 0.5 * t**3 * s * s


def build_table(
    basis: RadialBasis, network: torch.nn.Module, norm: float, dtype: torch.dtype
) -> RadialTable | None:
    """Tabulate ``norm * network(basis(r))``, or return ``None`` where no table is exact enough.

    The knots are computed in double precision, and their number is doubled until the table agrees
    with the network between the knots, values and slopes, to the round-off of ``dtype``.

    Parameters
    ----------
    basis : RadialBasis
    network : torch.nn.Module
        Radial basis to weights.
    norm : float
    dtype : torch.dtype
        float32 or float64.
    """
    basis, network = copy.deepcopy(basis).double(), copy.deepcopy(network).double()
    span = basis.basis.r_max - SHORTEST
    if span <= 0:
        return None

    def weights(length: torch.Tensor) -> torch.Tensor:
        return network(basis(length)) * norm

    def slopes(length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _sample(weights, length)[:2]

    intervals = 256
    while intervals <= _MAX_INTERVALS:
        step = span / intervals
        at = SHORTEST + step * torch.arange(intervals + 1, dtype=torch.float64)
        at[-1] = basis.basis.r_max
        value, slope, curvature = _sample(weights, at)
        knots = torch.cat((value, slope * step, curvature * step * step), dim=1)
        table = RadialTable(knots, SHORTEST, step)
        if knots.numel() * dtype.itemsize > _MAX_BYTES or not bool(knots.isfinite().all()):
            return None
        if _agrees(table, slopes, dtype):
            return RadialTable(knots.to(dtype).contiguous(), SHORTEST, step)
        intervals *= 2
    return None


def _agrees(table: RadialTable, slopes, dtype: torch.dtype) -> bool:
    length = table.origin + table.step * (torch.arange(table.knots.shape[0] - 1).double() + 0.5)
    worst = []
    for shift in (-0.29, 0.0):
        at = length + shift * table.step
        exact = slopes(at)
        found = torch.func.jvp(lambda r: interpolate(table, r), (at,), (torch.ones_like(at),))
        worst.append([float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)])
    scales = [max(float(a.abs().max()), 1e-300) for a in exact]
    errors = [max(w[k] for w in worst) / scales[k] for k in range(2)]
    return all(e <= limit for e, limit in zip(errors, _TOLERANCE[dtype], strict=True))
