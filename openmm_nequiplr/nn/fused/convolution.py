"""The edge convolution as one differentiable operation on the processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...derivatives import last_derivative
from ...threads import each_block, even_bounds
from . import kernels
from .plan import ProductPlan
from .table import RadialTable

#: Edges a thread must have to be worth waking.
EDGES_PER_THREAD = 1500


@dataclass(frozen=True)
class SortedEdges:
    """E directed edges, sorted by either end.

    Parameters
    ----------
    center, neighbor : numpy.ndarray, int64, shape (E,)
    by_center, by_neighbor : numpy.ndarray, int64, shape (E,)
        Orders.
    center_start, neighbor_start : numpy.ndarray, int64, shape (N + 1,)
        Where the edges of each atom begin in these orders.
    """

    center: np.ndarray
    neighbor: np.ndarray
    by_center: np.ndarray
    center_start: np.ndarray
    by_neighbor: np.ndarray
    neighbor_start: np.ndarray

    @classmethod
    def of(cls, edge_index: torch.Tensor, num_atoms: int) -> SortedEdges:
        """Sort the edges of ``edge_index``, int64, shape (2, E)."""
        center, neighbor = (np.ascontiguousarray(row.numpy()) for row in edge_index)
        ordered = [kernels.sort_edges(key, num_atoms) for key in (center, neighbor)]
        return cls(center, neighbor, *ordered[0], *ordered[1])


def _over_atoms(kernel: Callable[..., None], start: np.ndarray, *arguments) -> None:
    """Share the atoms among torch's threads, with as many edges for each."""
    atoms = start.shape[0] - 1
    bounds = np.searchsorted(start, even_bounds(int(start[-1]), EDGES_PER_THREAD)).tolist()
    bounds[0], bounds[-1] = 0, atoms
    each_block(bounds, lambda begin, end: kernel(begin, end, start, *arguments))


class _EdgeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, harmonics, length, plan, table, edges):
        ctx.save_for_backward(features, harmonics, length)
        ctx.extra = plan, table, edges
        out = features.new_empty(features.shape[0], plan.width)
        _over_atoms(
            kernels.accumulate,
            edges.center_start,
            edges.by_center,
            edges.neighbor,
            *(a.numpy() for a in (features, harmonics, length)),
            *_constants(plan, table, plan.entries),
            out.numpy(),
        )
        return out

    @staticmethod
    def backward(ctx, gradient):
        tensors = *ctx.saved_tensors, gradient
        slopes = last_derivative(
            "the compiled convolution of inference has one derivative (for more evaluate within "
            "openmm_nequiplr.nn.fused_loops(False)), and it",
            lambda: _slopes(ctx, *(a.detach().contiguous() for a in tensors)),
            tensors,
        )
        return *slopes, None, None, None


def _slopes(ctx, features, harmonics, length, gradient) -> tuple[torch.Tensor | None, ...]:
    """Gradients of the first three arguments for that of the result."""
    plan, table, edges = ctx.extra
    geometry = harmonics.numpy(), length.numpy()
    of_features = of_harmonics = of_length = None
    if ctx.needs_input_grad[0]:
        of_features = torch.empty_like(features)
        _over_atoms(
            kernels.accumulate,
            edges.neighbor_start,
            edges.by_neighbor,
            edges.center,
            gradient.numpy(),
            *geometry,
            *_constants(plan, table, plan.transposed()),
            of_features.numpy(),
        )
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        of_harmonics, of_length = torch.empty_like(harmonics), torch.empty_like(length)
        _over_atoms(
            kernels.differentiate,
            edges.center_start,
            edges.by_center,
            edges.neighbor,
            features.numpy(),
            gradient.numpy(),
            *geometry,
            *_constants(plan, table, plan.entries),
            of_harmonics.numpy(),
            of_length.numpy(),
        )
    return of_features, of_harmonics, of_length


def _constants(plan: ProductPlan, table: RadialTable, entries: np.ndarray) -> tuple:
    coefficients = table.coefficients.numpy()
    product = entries, plan.terms, plan.factors, plan.multiplicity
    return coefficients, table.origin, table.step, *product


def edge_convolution(
    features: torch.Tensor,
    harmonics: torch.Tensor,
    length: torch.Tensor,
    plan: ProductPlan,
    table: RadialTable,
    edges: SortedEdges,
) -> torch.Tensor:
    """Sum over neighbours of features times harmonics times radial weights.

    Differentiable once, with respect to the first three arguments. Twin of the edge product,
    radial network and ``index_add`` in :class:`~openmm_nequiplr.nn.InteractionBlock`.

    Parameters
    ----------
    features : torch.Tensor, shape (N, irreps_in.dim)
        Merged and channel-last, see :class:`ProductPlan`.
    harmonics : torch.Tensor, shape (E, irreps_edge.dim)
    length : torch.Tensor, shape (E,), Å
        Not below ``table.origin``; nothing comes from edges beyond the table.
    plan : ProductPlan
    table : RadialTable
    edges : SortedEdges

    Returns
    -------
    torch.Tensor, shape (N, irreps_out.dim)
        Merged and channel-last.
    """
    inputs = features.contiguous(), harmonics.contiguous(), length.contiguous()
    return _EdgeConvolution.apply(*inputs, plan, table, edges)
