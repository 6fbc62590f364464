"""The parts of a layer that work on one atom at a time, on merged channel-last features.

Features are a dictionary from irrep to a tensor of shape (N, irrep.dim, channels). In this order
e3nn's linear maps are plain matrix products.
"""

from __future__ import annotations

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


class MergedLinear:
    """``e3nn.o3.Linear`` as one matrix for every irrep; without bias."""

    def __init__(self, linear: o3.Linear, dtype: torch.dtype) -> None:
        if linear.bias_numel:
            raise UnsupportedError("a linear map without bias")
        inputs, outputs = merged(linear.irreps_in), merged(linear.irreps_out)
        rows, columns = first_channels(linear.irreps_in), first_channels(linear.irreps_out)
        exact = {
            ir: torch.zeros(inputs.get(ir, 0), mul, dtype=torch.float64)
            for ir, mul in outputs.items()
        }
        for _, step, weight in linear.weight_views(yield_instruction=True):
            r, c = rows[step.i_in], columns[step.i_out]
            target = exact[linear.irreps_out[step.i_out].ir]
            block = target[r : r + weight.shape[0], c : c + weight.shape[1]]
            block += weight.detach().double() * step.path_weight
        self.matrices = {ir: matrix.to(dtype) for ir, matrix in exact.items()}

    def __call__(self, features: Features) -> Features:
        return {ir: _times(features[ir], matrix) for ir, matrix in self.matrices.items()}


class MergedSelfConnection:
    """``e3nn.o3.FullyConnectedTensorProduct`` with scalar attributes as one matrix an irrep."""

    def __init__(self, product: o3.FullyConnectedTensorProduct, dtype: torch.dtype) -> None:
        inputs, outputs = merged(product.irreps_in1), merged(product.irreps_out)
        count = product.irreps_in2.dim
        rows, columns = first_channels(product.irreps_in1), first_channels(product.irreps_out)
        exact = {
            ir: torch.zeros(count, inputs[ir], mul, dtype=torch.float64)
            for ir, mul in outputs.items()
            if ir in inputs
        }
        for _, step, weight in product.weight_views(yield_instruction=True):
            r, c = rows[step.i_in1], columns[step.i_out]
            ir = product.irreps_out[step.i_out].ir
            block = exact[ir][:, r : r + weight.shape[0], c : c + weight.shape[2]]
            scale = step.path_weight / ir.dim**0.5
            block += weight.detach().double().transpose(0, 1) * scale
        self.matrices = {ir: matrix.flatten(0, 1).to(dtype) for ir, matrix in exact.items()}

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
