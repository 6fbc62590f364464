"""Tables of radial networks, whose weights depend only on the length of an edge."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..ops import RadialTable
from .e3 import FullyConnectedLayer, FullyConnectedNet, normalize2mom
from .frozen import Frozen
from .radial import BesselBasis, PolynomialCutoff, RadialBasis

Weights = Callable[[torch.Tensor], torch.Tensor]

#: Shortest tabulated length, Å (the basis functions are of the form sin(r)/r).
SHORTEST = 0.05
# Largest error of values and of derivatives, relative to the largest one, for each precision.
_TOLERANCE = {torch.float32: (2e-8, 1e-7), torch.float64: (1e-14, 1e-13)}
_MAX_BYTES, _MAX_INTERVALS = 2**28, 8192
_CACHE_BYTES = 2**28
_DEGREE = 5
# Modules that are determined by their numbers, functions and tensors.
_PLAIN: set[type] = {
    RadialBasis, BesselBasis, PolynomialCutoff, FullyConnectedNet, FullyConnectedLayer,
    normalize2mom,
}  # fmt: skip
# Cached tables by what they depend on, the most recent one last.
_last: dict[tuple[Any, ...], RadialTable | None] = {}
_lock = threading.Lock()


class FrozenWeights(Frozen):
    """Table of a radial network whose parameters require no gradient.

    Parameters
    ----------
    basis, network, norm, dtype
        Arguments of :func:`build_table`.

    Attributes
    ----------
    table : RadialTable or None
        ``None`` if no table is accurate enough.
    """

    def __init__(
        self, basis: RadialBasis, network: torch.nn.Module, norm: float, dtype: torch.dtype
    ) -> None:
        super().__init__(_parameters(basis, network))
        self._made_for = basis, network, dtype
        self.table = build_table(basis, network, norm, dtype)

    def holds(self, basis: RadialBasis, network: torch.nn.Module, dtype: torch.dtype) -> bool:
        """Whether the table is valid for these modules and their current parameters."""
        same = self._made_for == (basis, network, dtype)
        return same and self.made_of(_parameters(basis, network))


def parameters_of(module: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    """All parameters, without the duplicate check that makes ``Module.parameters`` slow."""
    yield from (p for p in module._parameters.values() if p is not None)
    for child in module._modules.values():
        if child is not None:
            yield from parameters_of(child)


def _parameters(*modules: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    return (parameter for module in modules for parameter in parameters_of(module))


def interpolate(table: RadialTable, length: torch.Tensor) -> torch.Tensor:
    """Weights interpolated from a table, shape (E, weight_numel): reference of the kernels."""
    x = (length - table.origin) / table.step
    row = x.long().clamp(max=table.coefficients.shape[0] - 1)
    t = (x - row - 0.5).unsqueeze(-1)
    powers = table.coefficients[row].chunk(_DEGREE + 1, dim=1)
    total = powers[-1]
    for power in powers[-2::-1]:
        total = total * t + power
    return total


def build_table(
    basis: RadialBasis, network: torch.nn.Module, norm: float, dtype: torch.dtype
) -> RadialTable | None:
    """Tabulate ``norm * network(basis(r))``; ``None`` if no table is accurate enough.

    Everything is computed in double precision on the CPU. The number of intervals is doubled until
    the values and derivatives of table and network agree to the round-off of ``dtype``. Recent
    tables are cached, so that copies of a model share them.

    Parameters
    ----------
    basis : RadialBasis
    network : torch.nn.Module
        Maps the radial basis to weights.
    norm : float
        Factor of the weights.
    dtype : torch.dtype
        float32 or float64.
    """
    device = basis.basis.bessel_weights.device
    with torch.inference_mode(False):
        basis = copy.deepcopy(basis).cpu().double()
        network = copy.deepcopy(network).cpu().double()
    key = _content(norm, dtype, basis, network)
    if key is None:
        table = _build(basis, network, norm, dtype)
    else:
        with _lock:
            known, table = key in _last, _last.pop(key, None)
        if not known:
            table = _build(basis, network, norm, dtype)
        with _lock:
            _last[key] = table
            while sum(t.coefficients.nbytes for t in _last.values() if t) > _CACHE_BYTES:
                del _last[next(iter(_last))]
    if table is None:
        return None
    return table._replace(coefficients=table.coefficients.to(device))


def _content(norm: float, dtype: torch.dtype, *modules: torch.nn.Module) -> tuple[Any, ...] | None:
    """Cache key of a table; ``None`` if modules may depend on more than can be compared."""
    found: list[Any] = [norm, dtype]
    for module in (each for one in modules for each in one.modules()):
        own = vars(module)
        if type(module) not in _PLAIN or "forward" in own:
            return None
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        found += [v for v in own.values() if isinstance(v, int | float | str) or callable(v)]
    tensors = (tensor for one in modules for tensor in one.state_dict().values())
    return (*found, *(tensor.numpy().tobytes() for tensor in tensors))


@torch.inference_mode(False)
@torch.no_grad()
def _build(
    basis: RadialBasis, network: torch.nn.Module, norm: float, dtype: torch.dtype
) -> RadialTable | None:
    r_max = basis.basis.r_max

    def weights(length: torch.Tensor) -> torch.Tensor:
        return network(basis(length)) * norm

    intervals = 128 if dtype == torch.float32 else 1024
    while r_max > SHORTEST and intervals <= _MAX_INTERVALS:
        table = _fit(weights, SHORTEST, r_max, intervals)
        values = table.coefficients.to(dtype).contiguous()
        if values.nbytes > _MAX_BYTES or not bool(values.isfinite().all()):
            return None
        if _agrees(table, weights, *_TOLERANCE[dtype]):
            return RadialTable(values, table.origin, table.step)
        intervals *= 2
    return None


def _with_slopes(weights: Weights, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and their derivatives by the length, both of shape (E, weight_numel).

    Each row depends on its own length alone. The result of a backward pass is linear in its
    cotangents; differentiating it by these gives the derivatives. Forward-mode differentiation
    would be shorter, but it is not thread-safe.
    """
    with torch.inference_mode(False), torch.enable_grad():
        length = length.detach().clone().requires_grad_()
        value = weights(length)
        factors = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, length, factors, create_graph=True)
        (slope,) = torch.autograd.grad(pulled.sum(), factors)
    return value.detach(), slope


def _fit(weights: Weights, begin: float, end: float, intervals: int) -> RadialTable:
    """Polynomials with the exact value at the midpoint and exact derivatives at the Gauss points.

    Gauss quadrature integrates the derivative over an interval to the order 2·5, so that adjacent
    polynomials agree at their boundary. No differences of similar values are formed.
    """
    step = (end - begin) / intervals
    middle = begin + step * (torch.arange(intervals, dtype=torch.float64) + 0.5)
    nodes = np.polynomial.legendre.leggauss(_DEGREE)[0] / 2
    samples = (middle.unsqueeze(1) + step * torch.from_numpy(nodes)).flatten()
    slopes = _with_slopes(weights, samples)[1].unflatten(0, (intervals, _DEGREE))
    invert = torch.from_numpy(np.linalg.inv(np.vander(nodes, increasing=True)))
    powers = torch.einsum("pn,knw->kpw", invert, slopes)
    powers = powers * step / torch.arange(1, _DEGREE + 1).view(1, -1, 1)
    values = weights(middle).unsqueeze(1)
    return RadialTable(torch.cat((values, powers), dim=1).flatten(1), begin, step)


def _agrees(table: RadialTable, weights: Weights, value_limit: float, slope_limit: float) -> bool:
    """Whether a table is accurate at the ends of its intervals and between them."""
    edges = table.step * torch.arange(table.coefficients.shape[0], dtype=torch.float64)
    length = torch.cat([table.origin + edges + part * table.step for part in (1e-6, 0.25, 0.6)])
    found = _with_slopes(lambda r: interpolate(table, r), length)
    exact = _with_slopes(weights, length)
    for one, other, limit in zip(found, exact, (value_limit, slope_limit), strict=True):
        if float((one - other).abs().max()) > limit * float(other.abs().max()):
            return False
    return True
