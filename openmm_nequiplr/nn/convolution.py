"""The NequIP convolution (Batzner et al. 2022, arXiv 2101.03164)."""

# TorchScript compiles these modules and reads annotations at run time: no postponed ones here.
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..ops import SortedEdges, compiled, sort_edges
from .dense import Gate, Linear, SelfConnection, join_features, shapes, split_features
from .e3 import FullyConnectedNet, o3
from .radial import RadialBasis, linearized_weights
from .table import SHORTEST, FrozenWeights, parameters_of
from .tensor_product import EdgeTensorProduct


def _shifted_softplus(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softplus(x) - 0.6931471805599453


#: Activations by their names in NequIP.
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": torch.nn.functional.silu,
    "ssp": _shifted_softplus,
    "tanh": torch.tanh,
    "abs": torch.abs,
}


def _reachable(irreps_in: o3.Irreps, irreps_edge: o3.Irreps, target: o3.Irrep) -> bool:
    return any(target in first.ir * second.ir for first in irreps_in for second in irreps_edge)


class Edges(NamedTuple):
    """E directed edges with the inputs that the layers of a stage compute from them.

    If the second half of the edges are the first half reversed, quantities that depend on the
    length alone may be given for the first half only.

    Parameters
    ----------
    ends : torch.Tensor, int64, shape (2, E)
        Centres and neighbours.
    length : torch.Tensor, shape (E,) or (E/2,), Å
    harmonics : torch.Tensor, shape (E, (l_max + 1)²)
        Spherical harmonics.
    radial : torch.Tensor, shape (E, num_radial) or (E/2, num_radial), optional
        Radial basis, or with its derivatives by the length, see :func:`edges_of`, shape
        (2, E/2, num_radial). Without it the radial weights are interpolated from tables.
    order, start : torch.Tensor, optional
        As in :class:`~openmm_nequiplr.ops.SortedEdges`; needed with tables.
    """

    ends: torch.Tensor
    length: torch.Tensor
    harmonics: torch.Tensor
    radial: torch.Tensor | None = None
    order: torch.Tensor | None = None
    start: torch.Tensor | None = None


class InteractionBlock(torch.nn.Module):
    """Interaction block: linear, tensor product with the edges, sum, linear, self-connection.

    Parameters
    ----------
    irreps_in, irreps_out : e3nn.o3.Irreps
        Node features before and after.
    irreps_edge : e3nn.o3.Irreps
        Spherical harmonics of the edges.
    num_attributes : int
        Number of scalar attributes of a node in the self-connection.
    num_radial, invariant_layers, invariant_neurons : int
        Inputs, hidden layers and their width in the radial network.
    avg_num_neighbors : float
        The sum over neighbours is divided by the square root of this number.
    use_sc : bool
        Whether to add the self-connection.
    activation : str
        Activation of the radial network, a key of ``ACTIVATIONS``.
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
        self.linear_1 = Linear(irreps_in, irreps_in)
        self.tp = EdgeTensorProduct(irreps_in, irreps_edge, irreps_out)
        widths = [num_radial, *invariant_layers * [invariant_neurons], self.tp.weight_numel]
        self.fc = FullyConnectedNet(widths, ACTIVATIONS[activation])
        self.linear_2 = Linear(self.tp.irreps_out.simplify(), irreps_out)
        self.sc = None
        if use_sc:
            self.sc = SelfConnection(irreps_in, num_attributes, irreps_out)
        self._silu = activation == "silu"
        self._sum_shapes = shapes(self.tp.irreps_out)
        self.norm = float(avg_num_neighbors) ** -0.5
        self._frozen: FrozenWeights | None = None

    def forward(
        self, features: list[torch.Tensor], attributes: torch.Tensor, edges: Edges
    ) -> list[torch.Tensor]:
        """Map features of ``irreps_in`` to features of ``irreps_out``."""
        total = self._sums(join_features(self.linear_1(features)), edges)
        result = self.linear_2(split_features(total, self._sum_shapes))
        if self.sc is not None:
            result = self.sc(features, attributes, result)
        return result

    def _sums(self, features: torch.Tensor, edges: Edges) -> torch.Tensor:
        """Weighted sum over neighbours, divided by the square root of their average number."""
        radial = edges.radial
        if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript passes over this alone)
            if radial is None:
                return self._tabulated_sums(features, edges)
        assert radial is not None
        weights = self._linearized(radial, edges.length) if radial.dim() == 3 else self.fc(radial)
        if weights.shape[0] < edges.ends.shape[1]:
            weights = torch.cat((weights, weights))
        total = self.tp(features, edges.harmonics, weights, edges.ends[0], edges.ends[1])
        return total * self.norm

    @torch.jit.unused
    def linearizable(self) -> bool:
        """Whether :func:`.radial.linearized_weights` supports the radial network."""
        return self._silu and type(self.fc) is FullyConnectedNet

    @torch.jit.unused
    def _linearized(self, radial: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return linearized_weights(self.fc, radial, length)

    @torch.jit.unused
    def _tabulated_sums(self, features: torch.Tensor, edges: Edges) -> torch.Tensor:
        table = None if self._frozen is None else self._frozen.table
        assert table is not None
        assert edges.order is not None
        assert edges.start is not None
        ordered = SortedEdges(edges.ends, edges.order, edges.start)
        return self.tp.tabulated(features, edges.harmonics, edges.length, table, ordered)

    @torch.jit.unused
    def tabulate(self, basis: RadialBasis, dtype: torch.dtype) -> bool:
        """Tabulate the radial weights if possible; return whether there is a table.

        There is none in training mode, if a parameter requires a gradient, or if the tensor product
        has been replaced with another module.
        """
        parts = basis, self.fc
        if self.training or type(self.tp) is not EdgeTensorProduct or self.tp.mul == 0:
            return False
        if any(p.requires_grad for part in parts for p in parameters_of(part)):
            return False
        if self._frozen is None or not self._frozen.holds(*parts, dtype):
            self._frozen = FrozenWeights(*parts, self.norm, dtype)
        return self._frozen.table is not None


class ConvNetLayer(torch.nn.Module):
    """Convolution layer: an interaction block followed by a gate.

    Parameters
    ----------
    irreps_in : e3nn.o3.Irreps
        Input node features.
    irreps_hidden : e3nn.o3.Irreps
        Requested node features; irreps that no path reaches are left out.
    irreps_edge : e3nn.o3.Irreps
    num_attributes : int
    resnet : bool
        Whether to add the input to the output if their irreps agree.
    nonlinearity_scalars, nonlinearity_gates : tuple of two str
        Activations of even and of odd scalars.
    block
        Other arguments of :class:`InteractionBlock`.

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
        self, features: list[torch.Tensor], attributes: torch.Tensor, edges: Edges
    ) -> list[torch.Tensor]:
        """Map features of ``irreps_in`` to features of ``irreps_out``."""
        result = self.equivariant_nonlin(self.conv(features, attributes, edges))
        if self.resnet:
            return [before + change for before, change in zip(features, result)]  # noqa: B905
        return result


def edges_of(
    layers: torch.nn.ModuleList,
    basis: RadialBasis,
    ends: torch.Tensor,
    length: torch.Tensor,
    harmonics: torch.Tensor,
    num_atoms: int,
) -> Edges:
    """Edges with the cheapest inputs from which the layers can compute their radial weights.

    Parameters that require no gradient allow tables of the radial weights. If both halves of the
    edges have the same lengths, length-dependent quantities are computed for the first half only.
    Training on forces needs the radial basis and its derivatives
    (:func:`.radial.linearized_weights`).
    """
    blocks = [layer.conv for layer in layers if type(layer) is ConvNetLayer]
    blocks = [block for block in blocks if type(block) is InteractionBlock]
    usual = len(blocks) == len(layers) and type(basis) is RadialBasis and compiled(length)
    if (
        usual
        and length.numel() > 0
        and all(block.tabulate(basis, length.dtype) for block in blocks)
        # false for NaN; on a GPU the check would synchronise, and the kernels detect short edges
        and (length.is_cuda or float(length.detach().min()) >= SHORTEST)
    ):
        _, order, start = sort_edges(ends, num_atoms)
        return Edges(ends, length, harmonics, None, order, start)
    half = length.shape[0] // 2
    waits = not length.is_cuda or any(block.training for block in blocks)  # else it is recorded
    compares = waits and not torch.compiler.is_compiling()
    if compares and torch.equal(length[:half], length[half:]):
        length = length[:half]
    training = usual and length.requires_grad and all(block.training for block in blocks)
    if training and all(block.linearizable() for block in blocks):
        return Edges(ends, length, harmonics, basis.along(length))
    return Edges(ends, length, harmonics, basis(length))
