"""Convolution of a NequIP layer: gather, product with harmonics and radial weights, scatter."""

# TorchScript compiles this module and reads annotations at run time: no postponed ones here.
import json
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..buffers import ExactBuffers
from . import convolution_operators as operators
from .choice import compiled
from .convolution_operators import RadialTable, SortedEdges


class Channels(NamedTuple):
    """Channels of one irrep in a row of channel-last features.

    Channel u of component c is in column ``first + c * total + offset + u``, for u below ``mul``.

    Parameters
    ----------
    first : int
        First column of the irrep.
    total : int
        Number of channels of the irrep.
    offset, mul : int
        First of these channels within the irrep, and their number.
    dim : int
        Number of components of the irrep.
    """

    first: int
    total: int
    offset: int
    mul: int
    dim: int


class Path(NamedTuple):
    """Tensor-product path: an input block times a degree of harmonics gives an output block.

    Parameters
    ----------
    block : int
        Index of the input block.
    output : Channels
    coupling : torch.Tensor, float64, shape (input dim, number of harmonics, output dim)
    """

    block: int
    output: Channels
    coupling: torch.Tensor


class Convolution(ExactBuffers):
    """Sum over neighbours of features times harmonics times radial weights.

    Entry n of an edge from centre i to neighbour j adds ``matrix[n] weights[w + u] x[j, a + u]`` to
    ``result[i, b + u]`` for every channel u, where ``w, a, b = entries[n]`` and
    ``matrix[n] = Σ factors[s] harmonics[m]`` over all s with ``n, m = terms[s]``. Compiled kernels
    loop over these tables or are generated from them. The torch reference multiplies each input
    block by one matrix, which depends only on the edge direction and covers all paths that start
    at the block.

    Parameters
    ----------
    blocks : sequence of Channels
        Input features.
    paths : sequence of Path
        The weights of an edge are in this order.
    num_harmonics : int

    Attributes
    ----------
    weight_numel : int
        Number of weights of an edge, one for each path and channel.
    mul : int
        Number of channels if all paths have the same number, as compiled kernels require; else 0.
    tables : str
        ``[entries, terms, factors]`` in JSON.
    """

    _weight_widths: list[int]
    _input_widths: list[int]
    _blocks: list[tuple[int, int, int, int, int]]
    _leaving: list[list[int]]
    _dims: list[list[int]]
    _arriving: list[list[int]]
    _column_widths: list[int]
    coupling: torch.Tensor

    def __init__(
        self, blocks: Sequence[Channels], paths: Sequence[Path], num_harmonics: int
    ) -> None:
        super().__init__()
        self._weight_widths = [blocks[path.block].mul for path in paths]
        self.weight_numel = sum(self._weight_widths)
        self.mul = self._weight_widths[0] if len(set(self._weight_widths)) == 1 else 0
        self._width = sum(path.output.mul * path.output.dim for path in paths)
        used = sorted({path.block for path in paths})
        irreps = sorted({(block.first, block.total, block.dim) for block in blocks})
        self._input_widths = [total * dim for _, total, dim in irreps]
        firsts = [first for first, *_ in irreps]
        self._blocks = [(firsts.index(blocks[k].first), *blocks[k][1:]) for k in used]
        #: For each input block, the paths that start at it and their numbers of components.
        self._leaving = [[n for n, path in enumerate(paths) if path.block == k] for k in used]
        self._dims = [[paths[n].output.dim for n in own] for own in self._leaving]
        order = sorted(range(len(paths)), key=lambda n: paths[n].output)
        #: For each output irrep, the paths that end at it.
        self._arriving = [
            [n for n in order if paths[n].output.first == first]
            for first in sorted({path.output.first for path in paths})
        ]
        columns = [
            torch.cat([paths[n].coupling for n in own], dim=2).permute(1, 2, 0).flatten(1)
            for own in self._leaving
        ]
        self._column_widths = [c.shape[1] for c in columns]
        none = torch.zeros(num_harmonics, 0, dtype=torch.float64)
        self.register_buffer("coupling", torch.cat([none, *columns], dim=1), persistent=False)
        self.tables = _tables(blocks, paths)

    def forward(
        self,
        features: torch.Tensor,
        harmonics: torch.Tensor,
        weights: torch.Tensor,
        center: torch.Tensor,
        neighbor: torch.Tensor,
    ) -> torch.Tensor:
        """Sums over the edges of each centre.

        Parameters
        ----------
        features : torch.Tensor, shape (N, input width)
            Channel-last.
        harmonics : torch.Tensor, shape (E, num_harmonics)
        weights : torch.Tensor, shape (E, weight_numel)
        center, neighbor : torch.Tensor, int64, shape (E,)

        Returns
        -------
        torch.Tensor, shape (N, output width)
            Channel-last.
        """
        if not torch.jit.is_scripting():
            if compiled(features) and self.mul > 0:
                return operators.convolution(
                    features, harmonics, weights, center, neighbor,
                    self.tables, self.mul, self._width,
                )  # fmt: skip
        return self.reference(features, harmonics, weights, center, neighbor)

    def reference(
        self,
        features: torch.Tensor,
        harmonics: torch.Tensor,
        weights: torch.Tensor,
        center: torch.Tensor,
        neighbor: torch.Tensor,
    ) -> torch.Tensor:
        """Reference of :meth:`forward` in plain torch, differentiable to any order."""
        messages = self._messages(features.index_select(0, neighbor), harmonics, weights)
        total = messages.new_zeros([features.shape[0], self._width])
        return total.index_add(0, center, messages)

    def _messages(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Message of each edge, for features of shape (E, input width)."""
        matrices = (harmonics @ self.coupling.to(harmonics.dtype)).split(self._column_widths, dim=1)
        irreps = features.split(self._input_widths, dim=1)
        path_weights = weights.split(self._weight_widths, dim=1)
        pieces = [features for _ in range(len(self._weight_widths))]
        for k, (irrep, total, offset, mul, dim) in enumerate(self._blocks):
            x = irreps[irrep].view(-1, dim, total).narrow(2, offset, mul)
            matrix = matrices[k].view(-1, self._column_widths[k] // dim, dim)
            product = matrix * x if dim == 1 else torch.bmm(matrix, x)
            parts = product.split(self._dims[k], dim=1)
            for n, part in enumerate(parts):
                path = self._leaving[k][n]
                pieces[path] = part * path_weights[path].unsqueeze(1)
        sums = [torch.cat([pieces[n] for n in own], dim=2).flatten(1) for own in self._arriving]
        if len(sums) == 0:
            return features[:, :0]
        return torch.cat(sums, dim=1)

    @torch.jit.unused
    def tabulated(
        self,
        features: torch.Tensor,
        harmonics: torch.Tensor,
        length: torch.Tensor,
        table: RadialTable,
        edges: SortedEdges,
    ) -> torch.Tensor:
        """:meth:`forward` with weights from a table; compiled and differentiable once.

        Parameters
        ----------
        features : torch.Tensor, shape (N, input width)
        harmonics : torch.Tensor, shape (E, num_harmonics)
        length : torch.Tensor, shape (E,), Å
            At least ``table.origin``, below which GPU kernels return NaN. Edges beyond the table
            contribute nothing.
        table : RadialTable
        edges : SortedEdges
        """
        return operators.tabulated_convolution(
            features, harmonics, length, *edges, *table, self.tables, self.mul, self._width, False
        )


def _tables(blocks: Sequence[Channels], paths: Sequence[Path]) -> str:
    """The tables ``entries``, ``terms`` and ``factors`` of :class:`Convolution`, in JSON."""
    entries: list[tuple[int, int, int]] = []
    terms: list[tuple[int, int]] = []
    factors: list[float] = []
    weight = 0
    for path in paths:
        source, target = blocks[path.block], path.output
        for out in range(target.dim):
            for component in range(source.dim):
                column = path.coupling[component, :, out].tolist()
                found = [(m, value) for m, value in enumerate(column) if abs(value) > 1e-12]
                if not found:
                    continue
                terms.extend((len(entries), m) for m, _ in found)
                factors.extend(value for _, value in found)
                a = source.first + component * source.total + source.offset
                b = target.first + out * target.total + target.offset
                entries.append((weight, a, b))
        weight += source.mul
    return json.dumps([entries, terms, factors])
