"""A stage's convolutions on the processor: plain matrices and compiled loops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from e3nn import o3

from ..convolution import ConvNetLayer
from ..radial import RadialBasis
from .convolution import SortedEdges, edge_convolution
from .dense import (
    Features,
    MergedGate,
    MergedLinear,
    MergedSelfConnection,
    from_e3nn,
    join,
    split,
    to_e3nn,
)
from .messages import sum_messages
from .plan import ProductPlan, UnsupportedError, merged
from .table import build_table

#: Merged features, channel-last, to their sums over neighbours.
Messages = Callable[[torch.Tensor], torch.Tensor]


class FusedLayer:
    """Twin of :class:`~openmm_nequiplr.nn.ConvNetLayer`.

    Parameters
    ----------
    layer : ConvNetLayer
    basis : RadialBasis
    dtype : torch.dtype
    frozen : bool
        Whether the weights stay as they are now, for inference: then the radial network is a table.

    Raises
    ------
    UnsupportedError
        If the layer has a feature that only the plain path knows.
    """

    def __init__(
        self, layer: ConvNetLayer, basis: RadialBasis, dtype: torch.dtype, frozen: bool
    ) -> None:
        block = layer.conv
        self.plan = ProductPlan.of(block.tp, dtype)
        self.table = build_table(basis, block.fc, block.norm, dtype) if frozen else None
        if frozen and self.table is None:
            raise UnsupportedError("a smooth radial network")
        self.fc, self.norm = block.fc, block.norm
        self.linear_1 = MergedLinear(block.linear_1, dtype, frozen)
        self.linear_2 = MergedLinear(block.linear_2, dtype, frozen)
        self.sc = None if block.sc is None else MergedSelfConnection(block.sc, dtype, frozen)
        self.gate = MergedGate(layer.equivariant_nonlin)
        self.irreps_sum = block.tp.irreps_out
        self.resnet = layer.resnet
        if self.resnet and merged(layer.irreps_out) != merged(block.tp.irreps_in):
            raise UnsupportedError("a residual update between like irreps")

    def __call__(
        self, features: Features, attributes: torch.Tensor, messages: Messages
    ) -> Features:
        total = messages(join(self.linear_1(features)))
        result = self.linear_2(split(total, self.irreps_sum))
        if self.sc is not None:
            result = self.sc.add(result, features, attributes)
        result = self.gate(result)
        if self.resnet:
            result = {ir: features[ir] + part for ir, part in result.items()}
        return result


class FusedConvolutions:
    """Embedding and layers of one stage.

    Parameters
    ----------
    embedding : e3nn.o3.Linear
    layers : torch.nn.ModuleList
        Of :class:`~openmm_nequiplr.nn.ConvNetLayer`, at least one.
    basis : RadialBasis
    dtype : torch.dtype
    frozen : bool
        Whether the weights stay as they are now; else they are those that the modules have when it
        is called, it can be differentiated by them, and twice.

    Raises
    ------
    UnsupportedError
        If the network has a feature that only the plain path knows.
    """

    def __init__(
        self,
        embedding: o3.Linear,
        layers: torch.nn.ModuleList,
        basis: RadialBasis,
        dtype: torch.dtype,
        frozen: bool,
    ) -> None:
        self.basis, self.frozen = basis, frozen
        self.embedding = MergedLinear(embedding, dtype, frozen)
        parts = [layer for layer in layers if isinstance(layer, ConvNetLayer)]
        self.layers = [FusedLayer(layer, basis, dtype, frozen) for layer in parts]
        self.irreps_in = parts[0].conv.linear_1.irreps_in
        self.irreps_out = parts[-1].irreps_out

    def __call__(
        self,
        attributes: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        start: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Node features in e3nn's order, shape (N, irreps_out.dim).

        Parameters
        ----------
        attributes : torch.Tensor, shape (N, number of attributes)
        edge_index : torch.Tensor, int64, shape (2, E)
        length : torch.Tensor, shape (E,), Å
        harmonics : torch.Tensor, shape (E, (l_max + 1)²)
        start : torch.Tensor, optional, shape (N, irreps_in.dim)
            In e3nn's order, of the first layer's irreps: what the embedding is added to.
        """
        scalar = o3.Irrep("0e")
        features = self.embedding({scalar: attributes.unsqueeze(1)})
        if start is not None:
            embedded = features[scalar]
            features = from_e3nn(start, self.irreps_in)
            features[scalar] = features[scalar] + embedded
        graph = edge_index, length, harmonics
        each = self._by_table(*graph, attributes.shape[0]) if self.frozen else self._by_net(*graph)
        for layer, messages in zip(self.layers, each, strict=True):
            features = layer(features, attributes, messages)
        return to_e3nn(features, self.irreps_out)

    def _by_table(
        self, edge_index: torch.Tensor, length: torch.Tensor, harmonics: torch.Tensor, atoms: int
    ) -> list[Messages]:
        """Of each layer, for inference."""
        edges = SortedEdges.of(edge_index, atoms)

        def of(layer: FusedLayer) -> Messages:
            assert layer.table is not None
            fixed = harmonics, length, layer.plan, layer.table, edges
            return lambda features: edge_convolution(features, *fixed)

        return [of(layer) for layer in self.layers]

    def _by_net(
        self, edge_index: torch.Tensor, length: torch.Tensor, harmonics: torch.Tensor
    ) -> list[Messages]:
        """Of each layer, for training."""
        radial = self.basis(length)

        def of(layer: FusedLayer) -> Messages:
            fixed = harmonics, layer.fc(radial), edge_index, layer.plan
            return lambda features: sum_messages(features, *fixed) * layer.norm

        return [of(layer) for layer in self.layers]
