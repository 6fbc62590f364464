"""The two networks in a form that TorchScript compiles; the same e3nn modules do the arithmetic.

Edges come in pairs: rows 0 to P − 1 lead from the first atom of a pair to the second, rows P to
2P − 1 back. What depends on the distance alone is computed once a pair.
"""

# TorchScript reads annotations at run time: no postponed ones in this package.
import torch
from e3nn import o3

from ...nn import (
    ConvNetLayer,
    EdgeTensorProduct,
    InteractionBlock,
    add_scalars,
    charge_encoding,
)
from ..stages import ElectronegativityStage, EnergyStage


class ScriptedChannels(torch.nn.Module):
    """:func:`openmm_nequiplr.nn.channel_last` for fixed irreps.

    Parameters
    ----------
    irreps : e3nn.o3.Irreps
    back : bool
        From channel-last to e3nn's order.
    """

    def __init__(self, irreps: o3.Irreps, back: bool = False) -> None:
        super().__init__()
        self.trivial = all(ir.dim == 1 or mul == 1 for mul, ir in irreps)
        self.widths = [mul * ir.dim for mul, ir in irreps]
        self.rows = [ir.dim if back else mul for mul, ir in irreps]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of shape (N, irreps.dim) with multiplicity and component swapped."""
        if self.trivial:
            return features
        swapped: list[torch.Tensor] = []
        for piece, rows in zip(features.split(self.widths, dim=1), self.rows):
            columns = piece.shape[1] // rows
            swapped.append(piece.reshape(-1, rows, columns).transpose(1, 2).flatten(1))
        return torch.cat(swapped, dim=1)


class _Block(torch.nn.Module):
    """All paths of the tensor product that leave one block of input features."""

    def __init__(self, coupling: torch.Tensor, dim: int, mul: int, sizes: list[int]) -> None:
        super().__init__()
        self.register_buffer("coupling", coupling)
        self.dim, self.mul, self.sizes, self.total = dim, mul, sizes, sum(sizes)

    def forward(self, features: torch.Tensor, harmonics: torch.Tensor) -> list[torch.Tensor]:
        x = features.reshape(-1, self.dim, self.mul)
        direction = (harmonics @ self.coupling).reshape(-1, self.total, self.dim)
        product = direction * x if self.dim == 1 else torch.bmm(direction, x)
        return product.split(self.sizes, dim=1)


class ScriptedProduct(torch.nn.Module):
    """:class:`openmm_nequiplr.nn.EdgeTensorProduct`; channel-last features."""

    def __init__(self, product: EdgeTensorProduct) -> None:
        super().__init__()
        self.widths, self.weight_widths = product._widths, product._weight_widths
        blocks: list[torch.nn.Module] = []
        used: list[int] = []
        position: list[int] = []
        for block, (mul, dim, own) in enumerate(product._blocks):
            if not own:
                continue
            sizes = [product.paths[k][2].dim for k in own]
            blocks.append(_Block(getattr(product, f"coupling_{block}").clone(), dim, mul, sizes))
            used.append(block)
            position.extend(product._position[k] for k in own)
        self.blocks, self.used, self.position = torch.nn.ModuleList(blocks), used, position

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        parts = features.split(self.widths, dim=1)
        path_weights = weights.split(self.weight_widths, dim=1)
        outputs = [features for _ in range(len(self.position))]
        path = 0
        for number, block in enumerate(self.blocks):
            for piece in block(parts[self.used[number]], harmonics):
                weighted = piece * path_weights[path].unsqueeze(1)
                outputs[self.position[path]] = weighted.flatten(1)
                path += 1
        return torch.cat(outputs, dim=1)


class _NothingBefore(torch.nn.Module):
    """A stage that starts from its embedding."""

    def forward(self, before: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        return embedded


class _FeaturesBefore(torch.nn.Module):
    """A stage that starts from the features of another one, too."""

    def __init__(self, linear: o3.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, before: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        return add_scalars(self.linear(before), embedded)


class _NoSelfConnection(torch.nn.Module):
    def forward(self, features: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        return features


class ScriptedInteraction(torch.nn.Module):
    """:class:`openmm_nequiplr.nn.InteractionBlock` with radial functions of shape (P, B)."""

    def __init__(self, block: InteractionBlock) -> None:
        super().__init__()
        self.linear_1, self.linear_2, self.fc = block.linear_1, block.linear_2, block.fc
        self.use_sc = block.sc is not None
        self.sc = block.sc if block.sc is not None else _NoSelfConnection()
        self.product = ScriptedProduct(block.tp)
        self.channels = ScriptedChannels(block.tp.irreps_in)
        self.back = ScriptedChannels(block.tp.irreps_out, back=True)
        self.norm = block.norm

    def forward(
        self,
        features: torch.Tensor,
        attributes: torch.Tensor,
        center: torch.Tensor,
        neighbor: torch.Tensor,
        harmonics: torch.Tensor,
        radial: torch.Tensor,
    ) -> torch.Tensor:
        mixed = self.channels(self.linear_1(features))
        half = self.fc(radial) * self.norm
        weights = torch.cat((half, half), dim=0)
        messages = self.product(mixed.index_select(0, neighbor), harmonics, weights)
        total = messages.new_zeros([features.shape[0], messages.shape[1]])
        result = self.linear_2(self.back(total.index_add(0, center, messages)))
        if self.use_sc:
            result = result + self.sc(features, attributes)
        return result


class ScriptedLayer(torch.nn.Module):
    """:class:`openmm_nequiplr.nn.ConvNetLayer`."""

    def __init__(self, layer: ConvNetLayer) -> None:
        super().__init__()
        self.conv = ScriptedInteraction(layer.conv)
        self.equivariant_nonlin, self.resnet = layer.equivariant_nonlin, layer.resnet

    def forward(
        self,
        features: torch.Tensor,
        attributes: torch.Tensor,
        center: torch.Tensor,
        neighbor: torch.Tensor,
        harmonics: torch.Tensor,
        radial: torch.Tensor,
    ) -> torch.Tensor:
        summed = self.conv(features, attributes, center, neighbor, harmonics, radial)
        result = self.equivariant_nonlin(summed)
        return features + result if self.resnet else result


class ScriptedStage(torch.nn.Module):
    """:class:`..stages.ElectronegativityStage` or :class:`..stages.EnergyStage`.

    Parameters
    ----------
    stage : ElectronegativityStage or EnergyStage
    """

    def __init__(self, stage: ElectronegativityStage | EnergyStage) -> None:
        super().__init__()
        convolutions = stage.convolutions
        self.num_types = stage.num_types
        self.with_charges = isinstance(stage, EnergyStage)
        low, high, count = stage.basis if isinstance(stage, EnergyStage) else (0.0, 1.0, 1)
        self.charge_min, self.charge_max, self.num_charge_basis = float(low), float(high), count
        self.embedding, self.radial_basis = convolutions.embedding, convolutions.radial_basis
        self.layers = torch.nn.ModuleList([ScriptedLayer(layer) for layer in convolutions.layers])
        self.readout = stage.readout
        linear = convolutions.before
        self.before = _NothingBefore() if linear is None else _FeaturesBefore(linear)

    def forward(
        self,
        types: torch.Tensor,
        charges: torch.Tensor,
        center: torch.Tensor,
        neighbor: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        before: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One scalar an atom, shape (N,), and the features it comes from, in the network's dtype.

        Parameters
        ----------
        types : torch.Tensor, int64, shape (N,)
        charges : torch.Tensor, shape (N,), e
            The electronegativity stage takes no notice of them.
        center, neighbor : torch.Tensor, int64, shape (2P,)
        length : torch.Tensor, shape (P,), Å
        harmonics : torch.Tensor, shape (2P, (l_max + 1)²)
        before : torch.Tensor, shape (N, …)
            Features of the electronegativity stage; looked at where the energy starts from them.
        """
        attributes = torch.nn.functional.one_hot(types, self.num_types).to(harmonics.dtype)
        if self.with_charges:
            encoded = charge_encoding(
                charges, self.charge_min, self.charge_max, self.num_charge_basis
            )
            attributes = torch.cat((attributes, encoded), dim=-1)
        features = self.before(before, self.embedding(attributes))
        radial = self.radial_basis(length)
        for layer in self.layers:
            features = layer(features, attributes, center, neighbor, harmonics, radial)
        return self.readout(features), features
