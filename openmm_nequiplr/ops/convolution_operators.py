"""Operators of the convolution and their derivatives.

Training needs first derivatives for the forces and second derivatives for the gradients of a loss
of forces. Row i of the convolution is Σ_e Σ_n c_n(H_e) Σ_u w_e[u] x_j[u], linear in each of the
features x, harmonics H and weights w. Its inner product with a gradient g of the result is linear
in each of the four, and so are the derivatives of this inner product.

In inference the weights are interpolated from a table, nothing is stored per edge, and there is one
derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..derivatives import last_derivative
from .choice import register

_LIMIT = (
    "the compiled convolution (once in inference, twice in training; for more evaluate within "
    "openmm_nequiplr.ops.references())"
)


class RadialTable(NamedTuple):
    """Radial weights as polynomials of the length on K intervals.

    Parameters
    ----------
    coefficients : torch.Tensor, shape (K, 6 weight_numel)
        Coefficients of all weights for t⁰, then for t¹, and so on up to t⁵. t is the distance from
        the middle of the interval divided by its width.
    origin, step : float, Å
        Start of the first interval and width of each interval. The last one ends at the cutoff,
        where all weights vanish.
    """

    coefficients: Tensor
    origin: float
    step: float


class SortedEdges(NamedTuple):
    """E directed edges, sorted by centre and by neighbour.

    Parameters
    ----------
    ends : torch.Tensor, int64, shape (2, E)
        Centres and neighbours.
    order : torch.Tensor, int64, shape (2, E)
        Permutations that sort the edges by centre and by neighbour.
    start : torch.Tensor, int64, shape (2, N + 1)
        Start of the edges of each atom in these orders.
    """

    ends: Tensor
    order: Tensor
    start: Tensor


def sort_edges(ends: Tensor, num_atoms: int) -> SortedEdges:
    """Sort the edges ``ends``, int64, shape (2, E); the result is cached on that tensor."""
    known = getattr(ends, "_sorted", None)
    if known is None or known[:2] != (ends._version, num_atoms):
        whole = ends.contiguous()
        edges = SortedEdges(whole, *torch.ops.openmm_nequiplr.sort_edges(whole, num_atoms))
        ends._sorted = known = ends._version, num_atoms, edges  # type: ignore[attr-defined]
    return known[2]


class _Convolution(torch.autograd.Function):
    """Inputs: features, harmonics, weights, centres, neighbours, tables, channels, width."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.save_for_backward(*inputs[:5])
        ctx.product = inputs[5:7]
        return torch.ops.openmm_nequiplr.convolution(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = _Gradients.apply(*ctx.saved_tensors, gradient, *ctx.product)
        return *found, *(None,) * 5


class _Gradients(torch.autograd.Function):
    """Gradients of features, harmonics and weights from a gradient of the convolution."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*inputs[:6])
        ctx.product = inputs[6:]
        return torch.ops.openmm_nequiplr.convolution_gradients(*inputs)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        values, second = ctx.saved_tensors, torch.ops.openmm_nequiplr.convolution_second_gradients
        constants, inputs = (list(directions), *ctx.product), (*values, *directions)
        found = last_derivative(_LIMIT, lambda: second(*values, *constants), inputs)
        of_features, of_gradient, *of_edges = found
        return of_features, *of_edges, None, None, of_gradient, None, None


def convolution(*inputs: Any) -> Tensor:
    """Compiled :meth:`.convolution.Convolution.forward`, differentiable twice."""
    return _Convolution.apply(*inputs)


class _Tabulated(torch.autograd.Function):
    """Inputs: features, harmonics, lengths, edges, radial table, tables, other constants."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.save_for_backward(*inputs[:3])
        ctx.constants = inputs[3:]
        return torch.ops.openmm_nequiplr.tabulated_convolution(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = *ctx.saved_tensors, gradient
        needed, constants = ctx.needs_input_grad, ctx.constants
        found = last_derivative(_LIMIT, lambda: _slopes(needed, inputs, constants), inputs)
        return *found, *(None,) * 10


def _slopes(
    needed: Sequence[bool], inputs: Sequence[Tensor], constants: Sequence[Any]
) -> tuple[Tensor | None, ...]:
    """Gradients of features, harmonics and lengths from that of a tabulated convolution."""
    features, harmonics, length, gradient = inputs
    *constants, _, transposed = constants
    of_features = of_harmonics = of_length = None
    if needed[0]:
        of_features = torch.ops.openmm_nequiplr.tabulated_convolution(
            gradient, harmonics, length, *constants, features.shape[1], not transposed
        )
    if needed[1] or needed[2]:
        sides = (gradient, features) if transposed else (features, gradient)
        of_harmonics, of_length = torch.ops.openmm_nequiplr.tabulated_convolution_gradients(
            *sides, harmonics, length, *constants
        )
    return of_features, of_harmonics, of_length


def tabulated_convolution(*inputs: Any) -> Tensor:
    """:meth:`.convolution.Convolution.tabulated` or its transpose; differentiable once.

    The transpose maps a gradient of the result to the gradient of the features: it sums over the
    centres of each neighbour.
    """
    return _Tabulated.apply(*inputs)


_INPUTS = "Tensor features, Tensor harmonics, Tensor weights, Tensor center, Tensor neighbor"
_EDGES = "Tensor ends, Tensor order, Tensor start, Tensor coefficients, float origin, float step"
_TABLES = "str tables, int mul"
for _schema in (
    "sort_edges(Tensor ends, int num_atoms) -> (Tensor, Tensor)",
    f"convolution({_INPUTS}, {_TABLES}, int width) -> Tensor",
    f"convolution_gradients({_INPUTS}, Tensor gradient, {_TABLES}) -> (Tensor, Tensor, Tensor)",
    f"convolution_second_gradients({_INPUTS}, Tensor gradient, Tensor[] directions, {_TABLES})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    f"tabulated_convolution(Tensor features, Tensor harmonics, Tensor length, {_EDGES}, {_TABLES},"
    " int width, bool transposed) -> Tensor",
    "tabulated_convolution_gradients(Tensor features, Tensor gradient, Tensor harmonics, "
    f"Tensor length, {_EDGES}, {_TABLES}) -> (Tensor, Tensor)",
):
    register(_schema, "convolution", _schema.partition("(")[0])
