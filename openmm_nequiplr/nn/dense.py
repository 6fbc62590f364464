"""The parts of a layer that work on one atom at a time, on channel-last features.

Weights are those of the e3nn modules of the same purpose, entry by entry.
"""

# TorchScript compiles these modules and reads annotations at run time: no postponed ones here.
from collections.abc import Callable
from typing import Any

import torch
from e3nn import o3
from e3nn.nn import Activation

from ..ops import Channels
from .tensor_product import channels


class _Mixing(torch.nn.Module):
    """Mixes the channels of each irrep by a matrix, linear in attributes."""

    _widths: list[int]
    _maps: list[tuple[int, int, int, int, int]]
    _norms: list[float]
    order: torch.Tensor

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, num_attributes: int) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        # rows of each matrix, as numbers of e3nn's weights: (attribute, channel in, channel out)
        rows: dict[o3.Irrep, list[torch.Tensor]] = {}
        numel = 0
        for mul, ir in self.irreps_in:
            for other_mul, other in self.irreps_out:
                if other == ir:
                    size = mul * num_attributes * other_mul
                    block = torch.arange(numel, numel + size).view(mul, num_attributes, other_mul)
                    rows.setdefault(ir, []).append(block.transpose(0, 1))
                    numel += size
        inputs = _by_irrep(self.irreps_in)
        self._widths = [entry.total * ir.dim for ir, entry in inputs.items()]
        number = {ir: k for k, ir in enumerate(inputs)}
        order = [torch.arange(0)]
        begin = 0
        self._maps, self._norms = [], []
        for ir, target in _by_irrep(self.irreps_out).items():
            total = inputs[ir].total if ir in inputs else 0
            self._maps.append(
                (number.get(ir, 0), ir.dim, num_attributes * total, target.total, begin)
            )
            self._norms.append(max(num_attributes * total, 1) ** -0.5)
            begin += num_attributes * total * target.total
            across = sum(other == ir for _, other in self.irreps_out)
            blocks = rows.get(ir, [])
            lines = [torch.cat(blocks[k : k + across], 2) for k in range(0, len(blocks), across)]
            order.extend([torch.cat(lines, 1).flatten()] if lines else [])
        self.register_buffer("order", torch.cat(order), persistent=False)
        self._in_order = bool((self.order == torch.arange(numel)).all())
        self.weight = torch.nn.Parameter(torch.randn(numel))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load as torch does; e3nn's modules also keep constants beside their weights."""
        for name in ("bias", "output_mask"):
            state.pop(prefix + name, None)
        super()._load_from_state_dict(state, prefix, *rest)

    def _matrix(self, number: int) -> torch.Tensor:
        """Of one irrep of the result: rows are channels of the input."""
        _, _, rows, columns, begin = self._maps[number]
        weight = self.weight if self._in_order else self.weight.index_select(0, self.order)
        return weight.narrow(0, begin, rows * columns).view(rows, columns) * self._norms[number]


class Linear(_Mixing):
    """``e3nn.o3.Linear`` as one matrix for every irrep.

    Parameters
    ----------
    irreps_in, irreps_out : e3nn.o3.Irreps
    """

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> None:
        super().__init__(irreps_in, irreps_out, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Channel-last features of shape (N, irreps_in.dim) to (N, irreps_out.dim)."""
        irreps = features.split(self._widths, dim=1)
        parts: list[torch.Tensor] = []
        for k, (source, dim, rows, columns, _) in enumerate(self._maps):
            if rows == 0:
                parts.append(features.new_zeros([features.shape[0], dim * columns]))
                continue
            part = irreps[source].reshape(-1, rows)
            parts.append((part @ self._matrix(k)).view(-1, dim * columns))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class SelfConnection(_Mixing):
    """``e3nn.o3.FullyConnectedTensorProduct`` with scalar attributes, one matrix an irrep.

    Parameters
    ----------
    irreps_in, irreps_out : e3nn.o3.Irreps
    num_attributes : int
    """

    def __init__(self, irreps_in: o3.Irreps, num_attributes: int, irreps_out: o3.Irreps) -> None:
        super().__init__(irreps_in, irreps_out, num_attributes)
        self.num_attributes = num_attributes

    def forward(
        self, features: torch.Tensor, attributes: torch.Tensor, result: torch.Tensor
    ) -> torch.Tensor:
        """``result``, shape (N, irreps_out.dim), plus the product.

        Features have shape (N, irreps_in.dim), attributes (N, num_attributes).
        """
        irreps = features.split(self._widths, dim=1)
        parts = list(result.split([dim * columns for _, dim, _, columns, _ in self._maps], dim=1))
        for k, (source, dim, rows, columns, _) in enumerate(self._maps):
            if rows > 0:
                part = irreps[source].view(-1, dim, 1, rows // self.num_attributes)
                outer = (attributes[:, None, :, None] * part).reshape(-1, rows)
                added = torch.addmm(parts[k].reshape(-1, columns), outer, self._matrix(k))
                parts[k] = added.view(-1, dim * columns)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _by_irrep(irreps: o3.Irreps) -> dict[o3.Irrep, Channels]:
    """The first entry of every irrep, in order of appearance."""
    found: dict[o3.Irrep, Channels] = {}
    for (_, ir), entry in zip(irreps, channels(irreps), strict=True):
        found.setdefault(ir, entry)
    return found


class Gate(torch.nn.Module):
    """``e3nn.nn.Gate``: activations of the scalars, gates on everything else.

    Parameters
    ----------
    scalars, gates, gated : e3nn.o3.Irreps
        One entry of ``gates`` for each of ``gated``, all of them different.
    act_scalars, act_gates : list of callable
        One for each entry; e3nn normalises them.

    Attributes
    ----------
    irreps_in : e3nn.o3.Irreps
        All three, sorted and simplified.
    irreps_out : e3nn.o3.Irreps
    """

    _widths: list[int]
    _scalars: list[int]
    _gates: list[int]
    _gated: list[tuple[int, int, int]]

    def __init__(
        self,
        scalars: o3.Irreps,
        act_scalars: list[Callable[[torch.Tensor], torch.Tensor]],
        gates: o3.Irreps,
        act_gates: list[Callable[[torch.Tensor], torch.Tensor]],
        gated: o3.Irreps,
    ) -> None:
        super().__init__()
        together = scalars + gates + gated
        order, places, _ = together.sort()
        self.irreps_in = order.simplify()
        self._widths = [mul * ir.dim for mul, ir in order]
        one, two = len(scalars), len(scalars) + len(gates)
        self._scalars, self._gates = list(places[:one]), list(places[one:two])
        sizes = [(ir.dim, mul) for mul, ir in gated]
        self._gated = [(k, *size) for k, size in zip(places[two:], sizes, strict=True)]
        first, second = Activation(scalars, act_scalars), Activation(gates, act_gates)
        self.act_scalars, self.act_gates = first.acts, second.acts
        signs = [ir.p for _, ir in second.irreps_out]
        self.irreps_out = first.irreps_out + o3.Irreps(
            [(mul, (ir.l, ir.p * sign)) for (mul, ir), sign in zip(gated, signs, strict=True)]
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Channel-last features of shape (N, irreps_in.dim) to (N, irreps_out.dim)."""
        entries = features.split(self._widths, dim=1)
        parts: list[torch.Tensor] = []
        for k, act in enumerate(self.act_scalars):
            parts.append(act(entries[self._scalars[k]]))
        for k, act in enumerate(self.act_gates):
            place, dim, mul = self._gated[k]
            gates = act(entries[self._gates[k]]).unsqueeze(1)
            parts.append((entries[place].view(-1, dim, mul) * gates).flatten(1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
