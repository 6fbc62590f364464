"""The parts of a layer that work on one atom at a time, on merged channel-last features.

Features are a dictionary from irrep to a tensor of shape (N, irrep.dim, channels). In this order
e3nn's linear maps are plain matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from e3nn import o3
from e3nn.nn import Gate

from .plan import UnsupportedError, first_channels, merged

Features = dict[o3.Irrep, torch.Tensor]


def split(features: torch.Tensor, irreps: o3.Irreps) -> Features:
    """Merged channel-last features of shape (N, irreps.dim) by irrep."""
    counts = merged(irreps)
    parts = features.split([ir.dim * mul for ir, mul in counts.items()], dim=1)
    return {
        ir: part.unflatten(1, (ir.dim, mul))
        for part, (ir, mul) in zip(parts, counts.items(), strict=True)
    }


def join(features: Features) -> torch.Tensor:
    """Merged channel-last features of shape (N, irreps.dim), as the compiled loops take them."""
    flat = [part.flatten(1) for part in features.values()]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)


def to_e3nn(features: Features, irreps: o3.Irreps) -> torch.Tensor:
    """Features of shape (N, irreps.dim) in e3nn's order."""
    parts = [
        features[ir][:, :, start : start + mul].transpose(1, 2).flatten(1)
        for (mul, ir), start in zip(irreps, first_channels(irreps), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def from_e3nn(features: torch.Tensor, irreps: o3.Irreps) -> Features:
    """Features of shape (N, irreps.dim) in e3nn's order, by irrep."""
    parts: dict[o3.Irrep, list[torch.Tensor]] = {ir: [] for ir in merged(irreps)}
    for piece, (mul, ir) in zip(
        features.split([m * i.dim for m, i in irreps], dim=1), irreps, strict=True
    ):
        parts[ir].append(piece.unflatten(1, (mul, ir.dim)).transpose(1, 2))
    return {ir: torch.cat(pieces, dim=2) for ir, pieces in parts.items()}


def _times(part: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Product over the last dimension, as one large matrix product instead of N small ones."""
    return (part.reshape(-1, part.shape[-1]) @ matrix).view(*part.shape[:-1], -1)


def _assemble(
    shapes: Mapping[o3.Irrep, tuple[int, ...]],
    blocks: list[tuple[o3.Irrep, int, int, torch.Tensor]],
) -> Features:
    """Matrices of given shapes by irrep: sums of blocks (irrep, row, column, values)."""
    matrices: Features = {}
    for ir, shape in shapes.items():
        own = [block[1:] for block in blocks if block[0] == ir]
        if len(own) == 1 and own[0][2].shape == shape:
            matrices[ir] = own[0][2]
            continue
        matrices[ir] = blocks[0][3].new_zeros(shape)
        for r, c, values in own:
            matrices[ir][..., r : r + values.shape[-2], c : c + values.shape[-1]] += values
    return matrices


class _Weighted:
    """Matrices out of the weights of an e3nn module.

    Parameters
    ----------
    module
        With ``weight`` and ``weight_views``.
    dtype : torch.dtype
    frozen : bool
        Whether to keep the weights as they are now, in ``dtype``; else those of the module enter
        every time, and can be differentiated by.
    """

    def __init__(self, module: Any, dtype: torch.dtype, frozen: bool) -> None:
        self._module = module
        self._kept: Features | None = None
        if frozen:
            exact = self._matrices(module.weight.detach().double())
            self._kept = {ir: matrix.to(dtype) for ir, matrix in exact.items()}

    def _matrices(self, weights: torch.Tensor) -> Features:
        raise NotImplementedError

    @property
    def matrices(self) -> Features:
        """One for each irrep of the result, channels of the input by those of the result."""
        return self._matrices(self._module.weight) if self._kept is None else self._kept


class MergedLinear(_Weighted):
    """``e3nn.o3.Linear`` as one matrix for every irrep; without bias."""

    def __init__(self, linear: o3.Linear, dtype: torch.dtype, frozen: bool) -> None:
        if linear.bias_numel:
            raise UnsupportedError("a linear map without bias")
        inputs, outputs = merged(linear.irreps_in), merged(linear.irreps_out)
        self._shapes = {ir: (inputs.get(ir, 0), mul) for ir, mul in outputs.items()}
        self._rows = first_channels(linear.irreps_in)
        self._columns = first_channels(linear.irreps_out)
        super().__init__(linear, dtype, frozen)

    def _matrices(self, weights: torch.Tensor) -> Features:
        blocks = []
        for _, step, weight in self._module.weight_views(weights, yield_instruction=True):
            place = self._rows[step.i_in], self._columns[step.i_out]
            ir = self._module.irreps_out[step.i_out].ir
            blocks.append((ir, *place, weight * step.path_weight))
        return _assemble(self._shapes, blocks)

    def __call__(self, features: Features) -> Features:
        return {ir: _times(features[ir], matrix) for ir, matrix in self.matrices.items()}


class MergedSelfConnection(_Weighted):
    """``e3nn.o3.FullyConnectedTensorProduct`` with scalar attributes as one matrix an irrep."""

    def __init__(
        self, product: o3.FullyConnectedTensorProduct, dtype: torch.dtype, frozen: bool
    ) -> None:
        inputs, outputs = merged(product.irreps_in1), merged(product.irreps_out)
        count = product.irreps_in2.dim
        self._shapes = {ir: (count, inputs[ir], mul) for ir, mul in outputs.items() if ir in inputs}
        self._rows = first_channels(product.irreps_in1)
        self._columns = first_channels(product.irreps_out)
        super().__init__(product, dtype, frozen)

    def _matrices(self, weights: torch.Tensor) -> Features:
        blocks = []
        for _, step, weight in self._module.weight_views(weights, yield_instruction=True):
            place = self._rows[step.i_in1], self._columns[step.i_out]
            ir = self._module.irreps_out[step.i_out].ir
            scale = step.path_weight / ir.dim**0.5
            blocks.append((ir, *place, weight.transpose(0, 1) * scale))
        return {ir: m.flatten(0, 1) for ir, m in _assemble(self._shapes, blocks).items()}

    def add(self, result: Features, features: Features, attributes: torch.Tensor) -> Features:
        """Add the product of features and attributes, shape (N, count), to a result."""
        added = dict(result)
        for ir, matrix in self.matrices.items():
            outer = attributes[:, None, :, None] * features[ir].unsqueeze(2)
            added[ir] = result[ir] + _times(outer.flatten(2), matrix)
        return added


class MergedGate:
    """``e3nn.nn.Gate``: activations of the scalars, gates on everything else."""

    def __init__(self, gate: Gate) -> None:
        parts = [gate.act_scalars.irreps_in, gate.act_gates.irreps_in, gate.mul.irreps_in1]
        together = parts[0] + parts[1] + parts[2]
        entries = [
            (ir, slice(start, start + mul))
            for (mul, ir), start in zip(together, first_channels(together), strict=True)
        ]
        scalars, gates = len(parts[0]), len(parts[0]) + len(parts[1])
        self.scalars = list(
            zip(entries[:scalars], gate.act_scalars.acts, gate.act_scalars.irreps_out, strict=True)
        )
        gated = gate.irreps_out[scalars:]
        if len(gated) != len(entries) - gates or len(gated) != gates - scalars:
            raise UnsupportedError("a gate for each irrep")
        self.gated = list(
            zip(entries[gates:], entries[scalars:gates], gate.act_gates.acts, gated, strict=True)
        )

    def __call__(self, features: Features) -> Features:
        out: dict[o3.Irrep, list[torch.Tensor]] = {}
        for (ir, where), act, (_, result) in self.scalars:
            out.setdefault(result, []).append(act(features[ir][:, :, where]))
        for (ir, where), (gate, place), act, (_, result) in self.gated:
            gates = act(features[gate][:, :, place])
            out.setdefault(result, []).append(features[ir][:, :, where] * gates)
        return {ir: p[0] if len(p) == 1 else torch.cat(p, dim=2) for ir, p in out.items()}
