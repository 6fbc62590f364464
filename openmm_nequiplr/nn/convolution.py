"""The NequIP convolution (Batzner et al. 2022, arXiv 2101.03164)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from e3nn import o3
from e3nn.nn import FullyConnectedNet, Gate

from .tensor_product import EdgeTensorProduct, channel_last


def _shifted_softplus(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softplus(x) - 0.6931471805599453


#: Activations by the names that NequIP gives them.
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": torch.nn.functional.silu,
    "ssp": _shifted_softplus,
    "tanh": torch.tanh,
    "abs": torch.abs,
}


def _reachable(irreps_in: o3.Irreps, irreps_edge: o3.Irreps, target: o3.Irrep) -> bool:
    return any(target in first.ir * second.ir for first in irreps_in for second in irreps_edge)


class InteractionBlock(torch.nn.Module):
    """Linear, edge product with radial weights, sum over neighbours, linear, self-connection.

    Parameters
    ----------
    irreps_in, irreps_out : e3nn.o3.Irreps
        Node features before and after.
    irreps_edge : e3nn.o3.Irreps
        Spherical harmonics of the edges.
    num_attributes : int
        Scalars that describe a node in the self-connection.
    num_radial, invariant_layers, invariant_neurons : int
        Radial network: inputs, hidden layers and their width.
    avg_num_neighbors : float
        The sum over neighbours is divided by its square root.
    use_sc : bool
        Whether to add the self-connection.
    activation : str
        Of the radial network; a key of ``ACTIVATIONS``.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_out: o3.Irreps,
        irreps_edge: o3.Irreps,
        num_attributes: int,
        num_radial: int,
        invariant_layers: int,
        invariant_neurons: int,
        avg_num_neighbors: float,
        use_sc: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.linear_1 = o3.Linear(irreps_in, irreps_in)
        self.tp = EdgeTensorProduct(irreps_in, irreps_edge, irreps_out)
        widths = [num_radial, *invariant_layers * [invariant_neurons], self.tp.weight_numel]
        self.fc = FullyConnectedNet(widths, ACTIVATIONS[activation])
        self.linear_2 = o3.Linear(self.tp.irreps_out.simplify(), irreps_out)
        self.sc = None
        if use_sc:
            attributes = o3.Irreps([(num_attributes, (0, 1))])
            self.sc = o3.FullyConnectedTensorProduct(irreps_in, attributes, irreps_out)
        self.norm = float(avg_num_neighbors) ** -0.5

    def forward(
        self,
        features: torch.Tensor,
        attributes: torch.Tensor,
        edge_index: torch.Tensor,
        harmonics: torch.Tensor,
        radial: torch.Tensor,
    ) -> torch.Tensor:
        """Node features of shape (N, irreps_in.dim) to shape (N, irreps_out.dim)."""
        center, neighbor = edge_index
        mixed = channel_last(self.linear_1(features), self.tp.irreps_in)
        weights = self.fc(radial)
        messages = self.tp(mixed.index_select(0, neighbor), harmonics, weights)
        total = messages.new_zeros(features.shape[0], messages.shape[1])
        total = total.index_add(0, center, messages) * self.norm
        result = self.linear_2(channel_last(total, self.tp.irreps_out, back=True))
        if self.sc is not None:
            result = result + self.sc(features, attributes)
        return result


class ConvNetLayer(torch.nn.Module):
    """A convolution and the gate that follows it.

    Parameters
    ----------
    irreps_in : e3nn.o3.Irreps
        Node features that come.
    irreps_hidden : e3nn.o3.Irreps
        Node features wanted; those that cannot be reached are left out.
    irreps_edge : e3nn.o3.Irreps
    num_attributes : int
    resnet : bool
        Add the input where the irreps allow it.
    nonlinearity_scalars, nonlinearity_gates : tuple of two str
        Activations of even and of odd scalars.
    block
        The other arguments of :class:`InteractionBlock`.

    Attributes
    ----------
    irreps_out : e3nn.o3.Irreps
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_hidden: o3.Irreps,
        irreps_edge: o3.Irreps,
        num_attributes: int,
        *,
        resnet: bool,
        nonlinearity_scalars: tuple[str, str],
        nonlinearity_gates: tuple[str, str],
        **block,
    ) -> None:
        super().__init__()
        hidden = [(mul, ir) for mul, ir in irreps_hidden if _reachable(irreps_in, irreps_edge, ir)]
        scalars = o3.Irreps([(mul, ir) for mul, ir in hidden if ir.l == 0])
        gated = o3.Irreps([(mul, ir) for mul, ir in hidden if ir.l > 0])
        gate = "0e" if _reachable(irreps_in, irreps_edge, o3.Irrep("0e")) else "0o"
        gates = o3.Irreps([(mul, gate) for mul, _ in gated])

        def pick(names: tuple[str, str], irreps: o3.Irreps) -> list:
            return [ACTIVATIONS[names[0 if ir.p == 1 else 1]] for _, ir in irreps]

        self.equivariant_nonlin = Gate(
            scalars,
            pick(nonlinearity_scalars, scalars),
            gates,
            pick(nonlinearity_gates, gates),
            gated,
        )
        self.conv = InteractionBlock(
            irreps_in,
            self.equivariant_nonlin.irreps_in.simplify(),
            irreps_edge,
            num_attributes,
            activation=nonlinearity_scalars[0],
            **block,
        )
        self.irreps_out = self.equivariant_nonlin.irreps_out
        self.resnet = resnet and (scalars + gated).simplify() == o3.Irreps(irreps_in)

    def forward(
        self,
        features: torch.Tensor,
        attributes: torch.Tensor,
        edge_index: torch.Tensor,
        harmonics: torch.Tensor,
        radial: torch.Tensor,
    ) -> torch.Tensor:
        """Node features of shape (N, irreps_in.dim) to shape (N, irreps_out.dim)."""
        result = self.equivariant_nonlin(
            self.conv(features, attributes, edge_index, harmonics, radial)
        )
        return features + result if self.resnet else result
