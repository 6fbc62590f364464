"""Parts of a layer that act on each atom alone: linear maps, self-connection and gate.

Features are a list with one tensor of shape (N, components, channels) for each irrep. The weights
have the order and normalisation of the corresponding e3nn modules.
"""

# TorchScript compiles these modules and reads annotations at run time: no postponed ones here. It
# does not support ``zip(strict=True)``.
from collections.abc import Callable
from typing import Any

import torch

from ..ops import Channels
from .e3 import Activation, o3
from .frozen import Frozen
from .tensor_product import channels


class _FrozenMatrices(Frozen):
    """Weight matrices derived from a parameter that requires no gradient."""

    def __init__(self, weight: torch.Tensor, matrices: list[torch.Tensor]) -> None:
        super().__init__([weight])
        self.matrices = matrices


class Mixing(torch.nn.Module):
    """Mixing of the channels of each irrep by a matrix that is linear in the attributes."""

    _maps: list[tuple[int, int, int, int]]
    _sizes: list[int]
    _norms: list[float]
    order: torch.Tensor
    norms: torch.Tensor

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, num_attributes: int) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        # rows of each matrix, as indices of e3nn's weights: (attribute, channel in, channel out)
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
        number = {ir: k for k, ir in enumerate(inputs)}
        order = [torch.arange(0)]
        self._maps, self._sizes, self._norms = [], [], []
        for ir, target in _by_irrep(self.irreps_out).items():
            total = inputs[ir].total if ir in inputs else 0
            self._maps.append((number.get(ir, 0), ir.dim, num_attributes * total, target.total))
            self._sizes.append(num_attributes * total * target.total)
            self._norms.append(max(num_attributes * total, 1) ** -0.5)
            across = sum(other == ir for _, other in self.irreps_out)
            blocks = rows.get(ir, [])
            lines = [torch.cat(blocks[k : k + across], 2) for k in range(0, len(blocks), across)]
            order.extend([torch.cat(lines, 1).flatten()] if lines else [])
        self.register_buffer("order", torch.cat(order), persistent=False)
        self._in_order = bool((self.order == torch.arange(numel)).all())
        self.weight = torch.nn.Parameter(torch.randn(numel))
        self.register_buffer("norms", self._each_norm().to(self.weight), persistent=False)
        self._frozen: Any = None

    def _each_norm(self) -> torch.Tensor:
        """Normalisation factor of each weight, float64."""
        each = torch.tensor(self._norms, dtype=torch.float64)
        return each.repeat_interleave(torch.tensor(self._sizes, dtype=torch.int64))

    def _apply(self, fn: Callable, recurse: bool = True) -> torch.nn.Module:
        """Move and cast as torch does, but round the normalisation factors only once."""
        super()._apply(fn, recurse)
        self.norms, self._frozen = self._each_norm().to(self.weight), None
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load as torch does, without the constants in the state of e3nn's modules."""
        for name in ("bias", "output_mask"):
            state.pop(prefix + name, None)
        super()._load_from_state_dict(state, prefix, *rest)

    @torch.jit.unused
    def take_over(self, other: "Mixing", attributes: tuple[list[int], int] | None = None) -> None:
        """Copy the weights of another module in place.

        Parameters
        ----------
        other : Mixing
            Module with the same irreps, or with fewer attributes (or, for a linear map of the
            attributes, with fewer input channels).
        attributes : pair, optional
            Indices of the other module's attributes among those of this module, and the number of
            attributes of this module.
        """
        if attributes is None:
            self.weight.copy_(other.weight)
            return
        known, count = torch.tensor(attributes[0]), attributes[1]
        weight = self.weight[self.order]
        pieces = zip(
            weight.split(self._sizes), self._maps, self._norms, other._matrices(), strict=True
        )
        for piece, (_, _, rows, columns), norm, theirs in pieces:
            each = rows // count
            index = (each * known.unsqueeze(1) + torch.arange(each)).flatten()
            piece.view(rows, columns)[index] = theirs / norm
        self.weight[self.order] = weight

    def _matrices(self) -> list[torch.Tensor]:
        """Matrix of each output irrep; rows are input channels."""
        if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript passes over this alone)
            if not (self.weight.requires_grad or torch.compiler.is_compiling()):
                return self._frozen_matrices()
        return self._arranged()

    @torch.jit.unused
    def _frozen_matrices(self) -> list[torch.Tensor]:
        """Matrices cached until the weights change."""
        known = self._frozen
        if known is None or not known.made_of([self.weight]):
            with torch.inference_mode(False):
                self._frozen = known = _FrozenMatrices(self.weight, self._arranged())
        return known.matrices

    def _arranged(self) -> list[torch.Tensor]:
        weight = self.weight if self._in_order else self.weight.index_select(0, self.order)
        result: list[torch.Tensor] = []
        for k, part in enumerate((weight * self.norms).split(self._sizes)):
            result.append(part.view(self._maps[k][2], self._maps[k][3]))
        return result


class Linear(Mixing):
    """``e3nn.o3.Linear`` as one matrix per irrep."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> None:
        super().__init__(irreps_in, irreps_out, 1)

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map features of ``irreps_in`` to features of ``irreps_out``."""
        matrices = self._matrices()
        result: list[torch.Tensor] = []
        for k, (source, dim, rows, columns) in enumerate(self._maps):
            if rows == 0:
                result.append(features[0].new_zeros([features[0].shape[0], dim, columns]))
                continue
            part = features[source].reshape(-1, rows)
            result.append((part @ matrices[k]).view(-1, dim, columns))
        return result


class SelfConnection(Mixing):
    """``e3nn.o3.FullyConnectedTensorProduct`` with scalar attributes as one matrix per irrep."""

    def __init__(self, irreps_in: o3.Irreps, num_attributes: int, irreps_out: o3.Irreps) -> None:
        super().__init__(irreps_in, irreps_out, num_attributes)
        self.num_attributes = num_attributes

    def forward(
        self,
        features: list[torch.Tensor],
        attributes: torch.Tensor,
        result: list[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Add the product of features and attributes, shape (N, num_attributes), to ``result``."""
        matrices = self._matrices()
        each = attributes.unsqueeze(1).unsqueeze(3)
        total: list[torch.Tensor] = []
        for k, (source, dim, rows, columns) in enumerate(self._maps):
            if rows == 0:
                total.append(result[k])
                continue
            outer = each * features[source].unsqueeze(2)
            mixed = outer.reshape(-1, rows) @ matrices[k]
            total.append(result[k] + mixed.view(-1, dim, columns))
        return total


def split_features(features: torch.Tensor, irreps: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Split channel-last features of shape (N, width) into one tensor for each irrep.

    ``irreps`` lists the numbers of components and channels (:func:`shapes`).
    """
    parts = features.split([dim * count for dim, count in irreps], dim=1)
    return [part.unflatten(1, list(irrep)) for part, irrep in zip(parts, irreps)]  # noqa: B905


def join_features(features: list[torch.Tensor]) -> torch.Tensor:
    """Join the features of all irreps into one tensor of shape (N, width), channel-last."""
    flat = [part.flatten(1) for part in features]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)


def shapes(irreps: o3.Irreps) -> list[tuple[int, int]]:
    """Numbers of components and channels of each irrep."""
    return [(ir.dim, entry.total) for ir, entry in _by_irrep(irreps).items()]


def _by_irrep(irreps: o3.Irreps) -> dict[o3.Irrep, Channels]:
    """First entry of each irrep, in order of appearance."""
    found: dict[o3.Irrep, Channels] = {}
    for (_, ir), entry in zip(irreps, channels(irreps), strict=True):
        found.setdefault(ir, entry)
    return found


class Gate(torch.nn.Module):
    """``e3nn.nn.Gate``: activation functions on scalars, scalar gates on all other irreps.

    Parameters
    ----------
    scalars, gates, gated : e3nn.o3.Irreps
        ``gates`` has one entry for each entry of ``gated``; the entries of ``gated`` differ.
    act_scalars, act_gates : list of callable
        Activation function of each entry, normalised by e3nn.

    Attributes
    ----------
    irreps_in : e3nn.o3.Irreps
        Scalars, gates and gated irreps, sorted and simplified.
    irreps_out : e3nn.o3.Irreps
    """

    _sizes: list[list[int]]
    _scalars: list[int]
    _gates: list[int]
    _gated: list[int]
    _merged: list[int]

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
        self._sizes = [
            [mul for mul, other in order if other == ir] for ir in _by_irrep(self.irreps_in)
        ]
        one, two = len(scalars), len(scalars) + len(gates)
        self._scalars, self._gates = list(places[:one]), list(places[one:two])
        self._gated = list(places[two:])
        first, second = Activation(scalars, act_scalars), Activation(gates, act_gates)
        self.act_scalars, self.act_gates = first.acts, second.acts
        signs = [ir.p for _, ir in second.irreps_out]
        self.irreps_out = first.irreps_out + o3.Irreps(
            [(mul, (ir.l, ir.p * sign)) for (mul, ir), sign in zip(gated, signs, strict=True)]
        )
        #: Number of results that form each irrep.
        self._merged = [
            sum(other == ir for _, other in self.irreps_out) for ir in _by_irrep(self.irreps_out)
        ]

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map features of ``irreps_in`` to features of ``irreps_out``."""
        entries: list[torch.Tensor] = []
        for part, sizes in zip(features, self._sizes):  # noqa: B905
            entries.extend(part.split(sizes, dim=2))
        results: list[torch.Tensor] = []
        for k, act in enumerate(self.act_scalars):
            results.append(act(entries[self._scalars[k]]))
        for k, act in enumerate(self.act_gates):
            results.append(entries[self._gated[k]] * act(entries[self._gates[k]]))
        if len(results) == len(self._merged):
            return results
        irreps: list[torch.Tensor] = []
        begin = 0
        for count in self._merged:
            irreps.append(torch.cat(results[begin : begin + count], dim=2))
            begin += count
        return irreps
