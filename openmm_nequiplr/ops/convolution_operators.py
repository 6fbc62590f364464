"""Operators of the convolution, with kernels for the CPU.

For training, forces are a first derivative and their errors need a second. The convolution is
Σ_e Σ_n c_n(H_e) Σ_u w_e[u] x_j[u] in row i of the result, linear in each of features x, harmonics H
and weights w. Times a gradient g of the result it is a number that is linear in all four, and so
are its derivatives.

For inference, the weights come from a table, nothing is kept per edge, and there is one derivative.

The CUDA kernel of an operator belongs here: ``convolution.register_kernel("cuda")``, and so on;
:func:`.choice.compiled` says that it is there.
"""

# torch reads the annotations of operators: no postponed ones here
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from ..threads import each_block, even_bounds
from .choice import kernels

#: Edges a thread must have to be worth waking.
EDGES_PER_THREAD = 1500

_NAMESPACE = "openmm_nequiplr::"
_NO_TABLES = (None,) * 4


class RadialTable(NamedTuple):
    """Radial weights: polynomials of the length on K intervals.

    Parameters
    ----------
    coefficients : torch.Tensor, shape (K, 6 weight_numel)
        Of all weights for the power 0 of t, for the power 1, and so on; t is the distance from the
        middle of the interval over its width.
    origin, step : float, Å
        Beginning of the first interval and width of each; the last one ends at the cutoff, where
        all weights vanish.
    """

    coefficients: Tensor
    origin: float
    step: float


class SortedEdges(NamedTuple):
    """E directed edges, sorted by either end.

    Parameters
    ----------
    ends : torch.Tensor, int64, shape (2, E)
        Centres and neighbours.
    order : torch.Tensor, int64, shape (2, E)
        The edges sorted by centre, and by neighbour.
    start : torch.Tensor, int64, shape (2, N + 1)
        Where the edges of each atom begin in these orders.
    """

    ends: Tensor
    order: Tensor
    start: Tensor


def sort_edges(ends: Tensor, num_atoms: int) -> SortedEdges:
    """Sort the edges ``ends``, int64, shape (2, E)."""
    ends, sort = ends.contiguous(), _kernels().sort_edges
    orders, starts = zip(*(sort(row, num_atoms) for row in ends.numpy()), strict=True)
    order, start = (torch.from_numpy(np.stack(rows)) for rows in (orders, starts))
    return SortedEdges(ends, order, start)


def _kernels() -> Any:
    return kernels("convolution_kernels")


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().contiguous().numpy() for t in tensors]


def _refuse(context: Any, *gradients: Tensor) -> NoReturn:
    raise RuntimeError(
        "the compiled convolution cannot be differentiated any further: once in inference, twice "
        "in training; for more evaluate within openmm_nequiplr.ops.references()"
    )


def _keep_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


# ------------------------------------------------------------------------------------- training


def _over_edges(
    kernel: Any,
    inputs: Sequence[Tensor],
    tables: Sequence[Tensor],
    mul: int,
    atoms: Any,
    edges: Any = (),
) -> tuple[Tensor, ...]:
    """Run a kernel over all edges; every thread adds to sums over atoms of its own.

    ``inputs`` are centres, neighbours and what the kernel takes; ``atoms`` are the shapes of sums
    over atoms, ``edges`` those of values of edges.
    """
    like = inputs[2]
    of_edges = [like.new_zeros(shape) for shape in edges]
    arrays = _arrays(*inputs, *tables)

    def run(begin: int, end: int) -> list[Tensor]:
        of_atoms = [like.new_zeros(shape) for shape in atoms]
        kernel(begin, end, *arrays, mul, *_arrays(*of_atoms, *of_edges))
        return of_atoms

    parts = each_block(even_bounds(inputs[0].shape[0], EDGES_PER_THREAD), run)
    of_atoms = [functools.reduce(torch.add, sums) for sums in zip(*parts, strict=True)]
    return *of_atoms, *of_edges


@torch.library.custom_op(_NAMESPACE + "convolution", mutates_args=(), device_types="cpu")
def convolution(
    features: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    center: Tensor,
    neighbor: Tensor,
    entries: Tensor,
    terms: Tensor,
    factors: Tensor,
    mul: int,
    width: int,
) -> Tensor:
    """:meth:`.convolution.Convolution.forward`; differentiable twice."""
    inputs = center, neighbor, features, harmonics, weights
    shape = features.shape[0], width
    tables = entries, terms, factors
    return _over_edges(_kernels().add_messages, inputs, tables, mul, [shape])[0]


@torch.library.custom_op(_NAMESPACE + "convolution_gradients", mutates_args=(), device_types="cpu")
def convolution_gradients(
    features: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    center: Tensor,
    neighbor: Tensor,
    gradient: Tensor,
    entries: Tensor,
    terms: Tensor,
    factors: Tensor,
    mul: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features, harmonics and weights for a gradient of the convolution."""
    inputs = center, neighbor, features, harmonics, weights, gradient
    of_edges = harmonics.shape, weights.shape
    tables = entries, terms, factors
    found = _over_edges(_kernels().add_gradients, inputs, tables, mul, [features.shape], of_edges)
    return found[0], found[1], found[2]


@torch.library.custom_op(
    _NAMESPACE + "convolution_second_gradients", mutates_args=(), device_types="cpu"
)
def convolution_second_gradients(
    features: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    center: Tensor,
    neighbor: Tensor,
    gradient: Tensor,
    directions: Sequence[Tensor],
    entries: Tensor,
    terms: Tensor,
    factors: Tensor,
    mul: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of features, ``gradient``, harmonics and weights for directions of the first ones.

    ``directions`` are gradients of the three results of :func:`convolution_gradients`.
    """
    inputs = center, neighbor, features, harmonics, weights, gradient, *directions
    of_atoms, of_edges = [features.shape, gradient.shape], [harmonics.shape, weights.shape]
    tables = entries, terms, factors
    found = _over_edges(_kernels().add_second_gradients, inputs, tables, mul, of_atoms, of_edges)
    return found[0], found[1], found[2], found[3]


def _keep_inputs(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*(each for each in inputs if isinstance(each, Tensor)))
    ctx.mul = next(each for each in inputs if isinstance(each, int))


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, entries, terms, factors = ctx.saved_tensors
    found = convolution_gradients(*inputs, gradient, entries, terms, factors, ctx.mul)
    return *found, None, None, *_NO_TABLES, None


def _differentiate_again(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, entries, terms, factors = ctx.saved_tensors
    of_features, of_gradient, *of_edges = convolution_second_gradients(
        *inputs, list(directions), entries, terms, factors, ctx.mul
    )
    return of_features, *of_edges, None, None, of_gradient, *_NO_TABLES


convolution.register_autograd(_differentiate, setup_context=_keep_inputs)
convolution_gradients.register_autograd(_differentiate_again, setup_context=_keep_inputs)
convolution_second_gradients.register_autograd(_refuse, setup_context=_keep_nothing)


# ------------------------------------------------------------------------------------ inference


def _over_atoms(
    kernel: Any, start: Tensor, arguments: Sequence[Any], out: Sequence[Tensor]
) -> None:
    """Share the atoms among torch's threads, with as many edges for each."""
    first = start.numpy()
    bounds = np.searchsorted(first, even_bounds(int(first[-1]), EDGES_PER_THREAD)).tolist()
    bounds[0], bounds[-1] = 0, first.shape[0] - 1
    written = _arrays(*out)
    each_block(bounds, lambda begin, end: kernel(begin, end, first, *arguments, *written))


@torch.library.custom_op(_NAMESPACE + "tabulated_convolution", mutates_args=(), device_types="cpu")
def tabulated_convolution(
    features: Tensor,
    harmonics: Tensor,
    length: Tensor,
    ends: Tensor,
    order: Tensor,
    start: Tensor,
    coefficients: Tensor,
    origin: float,
    step: float,
    entries: Tensor,
    terms: Tensor,
    factors: Tensor,
    mul: int,
    width: int,
    transposed: bool,
) -> Tensor:
    """:meth:`.convolution.Convolution.tabulated`, or its transpose; differentiable once.

    The transpose takes a gradient of the result in place of the features and sums over the centres
    of each neighbour: this is the gradient of the features.
    """
    side = int(transposed)
    if transposed:
        entries = entries[:, [0, 2, 1]]
    out = features.new_empty(features.shape[0], width)
    arguments = [
        *_arrays(order[side], ends[1 - side], features, harmonics, length, coefficients),
        *(origin, step),
        *_arrays(entries, terms, factors),
        mul,
    ]
    _over_atoms(_kernels().tabulated_sums, start[side], arguments, [out])
    return out


@torch.library.custom_op(
    _NAMESPACE + "tabulated_convolution_gradients", mutates_args=(), device_types="cpu"
)
def tabulated_convolution_gradients(
    features: Tensor,
    gradient: Tensor,
    harmonics: Tensor,
    length: Tensor,
    ends: Tensor,
    order: Tensor,
    start: Tensor,
    coefficients: Tensor,
    origin: float,
    step: float,
    entries: Tensor,
    terms: Tensor,
    factors: Tensor,
    mul: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of harmonics and lengths for a gradient of the tabulated convolution."""
    out = torch.empty_like(harmonics), torch.empty_like(length)
    arguments = [
        *_arrays(order[0], ends[1], features, gradient, harmonics, length, coefficients),
        *(origin, step),
        *_arrays(entries, terms, factors),
        mul,
    ]
    _over_atoms(_kernels().tabulated_gradients, start[0], arguments, out)
    return out


def _keep_tabulated(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*(each for each in inputs if isinstance(each, Tensor)))
    ctx.origin, ctx.step, ctx.mul, ctx.transposed = inputs[7], inputs[8], inputs[12], inputs[14]
    ctx.columns = inputs[0].shape[1]


def _differentiate_tabulated(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    features, *geometry, coefficients, entries, terms, factors = ctx.saved_tensors
    rest = *geometry, coefficients, ctx.origin, ctx.step, entries, terms, factors, ctx.mul
    of_features = of_harmonics = of_length = None
    if ctx.needs_input_grad[0]:
        of_features = tabulated_convolution(gradient, *rest, ctx.columns, not ctx.transposed)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        sides = (gradient, features) if ctx.transposed else (features, gradient)
        of_harmonics, of_length = tabulated_convolution_gradients(*sides, *rest)
    return of_features, of_harmonics, of_length, *(None,) * 12


tabulated_convolution.register_autograd(_differentiate_tabulated, setup_context=_keep_tabulated)
tabulated_convolution_gradients.register_autograd(_refuse, setup_context=_keep_nothing)
