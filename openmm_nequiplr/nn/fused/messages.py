"""The edge product and its sum over neighbours as one operation that can be differentiated twice.

For training on the processor: forces are a first derivative and their errors need a second. The sum
is Σ_e Σ_n c_n(H_e) Σ_u w_e[u] x_j[u] into row i of the result, linear in each of features x,
harmonics H and weights w; with a gradient g of the result in the place of row i it is a number,
linear in all four, and so are its derivatives. Twin of the edge product and ``index_add`` in
:class:`~openmm_nequiplr.nn.InteractionBlock`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from ...derivatives import last_derivative
from ...threads import each_block, even_bounds
from . import kernels
from .convolution import EDGES_PER_THREAD
from .plan import ProductPlan


def sum_messages(
    features: torch.Tensor,
    harmonics: torch.Tensor,
    weights: torch.Tensor,
    edge_index: torch.Tensor,
    plan: ProductPlan,
) -> torch.Tensor:
    """Products of the neighbours' features on every edge, summed over the edges of each centre.

    Differentiable twice with respect to the first three arguments.

    Parameters
    ----------
    features : torch.Tensor, shape (N, irreps_in.dim)
        Channel-last.
    harmonics : torch.Tensor, shape (E, irreps_edge.dim)
    weights : torch.Tensor, shape (E, weight_numel)
    edge_index : torch.Tensor, int64, shape (2, E)
        Centres and neighbours.
    plan : ProductPlan

    Returns
    -------
    torch.Tensor, shape (N, irreps_out.dim)
        Channel-last, the channels of like irreps together.
    """
    return _Messages.apply(features, harmonics, weights, edge_index, plan)


def _each(
    kernel: Any,
    edge_index: torch.Tensor,
    plan: ProductPlan,
    inputs: Any,
    atoms: Any,
    edges: Any = (),
) -> tuple[torch.Tensor, ...]:
    """Run a kernel over all edges; every thread adds to sums over atoms of its own.

    ``atoms`` are the shapes of sums over atoms, ``edges`` those of values of edges.
    """
    like = inputs[0]
    of_edges = [like.new_zeros(shape) for shape in edges]
    center, neighbor = (row.contiguous().numpy() for row in edge_index)
    arrays = [a.detach().contiguous().numpy() for a in inputs]
    tables = plan.entries, plan.terms, plan.factors, plan.multiplicity

    def run(begin: int, end: int) -> list[torch.Tensor]:
        of_atoms = [like.new_zeros(shape) for shape in atoms]
        written = (a.numpy() for a in (*of_atoms, *of_edges))
        kernel(begin, end, center, neighbor, *arrays, *tables, *written)
        return of_atoms

    parts = each_block(even_bounds(edge_index.shape[1], EDGES_PER_THREAD), run)
    of_atoms = [functools.reduce(torch.add, sums) for sums in zip(*parts, strict=True)]
    return *of_atoms, *of_edges


_MORE = "for more evaluate within openmm_nequiplr.nn.fused_loops(False)"


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Any, harmonics: Any, weights: Any, edge_index: Any, plan: Any):
        ctx.save_for_backward(features, harmonics, weights, edge_index)
        ctx.plan = plan
        shape = features.shape[0], plan.width
        inputs = features, harmonics, weights
        return _each(kernels.add_messages, edge_index, plan, inputs, [shape])[0]

    @staticmethod
    def backward(ctx: Any, gradient: Any):
        return *_Slopes.apply(*ctx.saved_tensors, gradient, ctx.plan), None, None


class _Slopes(torch.autograd.Function):
    """Gradients of features, harmonics and weights for a gradient of the messages."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Any,
        harmonics: Any,
        weights: Any,
        edge_index: Any,
        gradient: Any,
        plan: Any,
    ):
        ctx.save_for_backward(features, harmonics, weights, edge_index, gradient)
        ctx.plan = plan
        inputs = features, harmonics, weights, gradient
        edges = harmonics.shape, weights.shape
        return _each(kernels.add_slopes, edge_index, plan, inputs, [features.shape], edges)

    @staticmethod
    def backward(ctx: Any, *directions: Any):
        features, harmonics, weights, edge_index, gradient = ctx.saved_tensors
        inputs = features, harmonics, weights, gradient, *directions
        atoms, edges = (features.shape, gradient.shape), (harmonics.shape, weights.shape)
        of_features, of_gradient, of_harmonics, of_weights = last_derivative(
            f"the compiled sum of messages has two derivatives ({_MORE}), and the second",
            lambda: _each(kernels.add_curvatures, edge_index, ctx.plan, inputs, atoms, edges),
            inputs,
        )
        return of_features, of_harmonics, of_weights, None, of_gradient, None
