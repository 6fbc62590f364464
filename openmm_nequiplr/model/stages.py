"""The two networks of NequIP-LR, and their common edge features."""

# TorchScript compiles these modules and reads annotations at run time: no postponed ones here.
import torch

from ..nn import (
    ConvNetLayer,
    Edges,
    Linear,
    RadialBasis,
    ScalarReadout,
    charge_encoding,
    edges_of,
    join_features,
    one_hot,
    shapes,
    split_features,
)
from ..nn.e3 import harmonics_of_vectors, o3
from .config import ModelConfig


def _hidden_irreps(config: ModelConfig) -> o3.Irreps:
    if config.parity and config.pseudotensors:
        degrees = range(config.l_max + 1)
        irreps = [o3.Irrep(degree, p) for p in (1, -1) for degree in degrees]
    else:
        irreps = [ir for _, ir in harmonics_irreps(config)]
    return o3.Irreps([(config.num_features, irrep) for irrep in irreps])


def harmonics_irreps(config: ModelConfig) -> o3.Irreps:
    """Irreps of the spherical harmonics: parity (−1)^l, or all even without parity."""
    return o3.Irreps.spherical_harmonics(config.l_max, p=-1 if config.parity else 1)


class EdgeHarmonics(torch.nn.Module):
    """Spherical harmonics of edge vectors with component normalisation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        irreps = harmonics_irreps(config)
        self.sh = o3.SphericalHarmonics(irreps, normalize=True, normalization="component")
        # with older versions of torch e3nn compiles it by TorchScript, which on a GPU compiles
        # kernels for every number of edges
        self.sh.sph_func = harmonics_of_vectors

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Harmonics, shape (E, (l_max + 1)²), of vectors, shape (E, 3)."""
        return self.sh(vectors)


class _Convolutions(torch.nn.Module):
    """Embedding and convolutions of a stage.

    Parameters
    ----------
    config : ModelConfig
    num_attributes, num_layers : int
    r_max : float, Å
    irreps_before : e3nn.o3.Irreps, optional
        Irreps of the features of another stage with which this stage is initialised.
    shared : bool
        Whether another stage is initialised with the features of this stage.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_attributes: int,
        num_layers: int,
        r_max: float,
        irreps_before: o3.Irreps | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.radial_basis = RadialBasis(
            r_max, config.num_bessels, config.bessel_trainable, config.polynomial_cutoff_p
        )
        attributes = o3.Irreps([(num_attributes, (0, 1))])
        irreps = o3.Irreps([(config.num_features, (0, 1))])
        self.embedding = Linear(attributes, irreps)
        #: None without features of another stage.
        self.before = None
        if irreps_before is not None:
            irreps = irreps + irreps_before.filter(drop=["0e"])
            self.before = Linear(irreps_before, irreps)
            self._before_shapes = shapes(irreps_before)
        layers = []
        for number in range(1, num_layers + 1):
            last = config.scalar_last_layer and number == num_layers and not shared
            layer = ConvNetLayer(
                irreps,
                o3.Irreps([(config.num_features, (0, 1))]) if last else _hidden_irreps(config),
                harmonics_irreps(config),
                num_attributes,
                resnet=config.resnet,
                nonlinearity_scalars=config.nonlinearity_scalars,
                nonlinearity_gates=config.nonlinearity_gates,
                num_radial=config.num_bessels,
                invariant_layers=config.invariant_layers,
                invariant_neurons=config.invariant_neurons,
                avg_num_neighbors=config.avg_num_neighbors,
                use_sc=config.use_sc,
            )
            layers.append(layer)
            irreps = layer.irreps_out
        self.layers = torch.nn.ModuleList(layers)
        self.irreps_out = irreps

    def forward(
        self,
        attributes: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        before: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Features of ``irreps_out``; ``before`` has the shape (N, irreps_before.dim)."""
        features = self.embedding([attributes.unsqueeze(1)])
        if self.before is not None:
            assert before is not None
            start = self.before(split_features(before, self._before_shapes))
            features = [start[0] + features[0]] + start[1:]  # noqa: RUF005 (TorchScript)
        if len(self.layers) > 0:
            edges = self._edges(edge_index, length, harmonics, attributes.shape[0])
            for layer in self.layers:
                features = layer(features, attributes, edges)
        return features

    def _edges(
        self,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        num_atoms: int,
    ) -> Edges:
        if not torch.jit.is_scripting():
            graph = edge_index, length, harmonics, num_atoms
            return edges_of(self.layers, self.radial_basis, *graph)
        return Edges(edge_index, length, harmonics, self.radial_basis(length))


class ElectronegativityStage(torch.nn.Module):
    """Network that predicts the electronegativities χ from the structure."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_types = len(config.type_names)
        self.convolutions = _Convolutions(
            config,
            self.num_types,
            config.num_layers,
            config.r_max,
            shared=config.shared_features,
        )
        self.readout = ScalarReadout(self.convolutions.irreps_out, config.num_features)

    def forward(
        self,
        types: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Electronegativities, shape (N,), eV/e, and the final features.

        Both have the dtype of the network; the shape of the features is
        (N, convolutions.irreps_out.dim).

        Parameters
        ----------
        types : torch.Tensor, int64, shape (N,)
        edge_index : torch.Tensor, int64, shape (2, E)
        length : torch.Tensor, shape (E,), Å
        harmonics : torch.Tensor, shape (E, (l_max + 1)²)
        """
        attributes = one_hot(types, self.num_types, harmonics.dtype)
        features = self.convolutions(attributes, edge_index, length, harmonics)
        return self.readout(features), join_features(features)


class EnergyStage(torch.nn.Module):
    """Network that predicts atomic energies from the structure and, if there are any, the charges.

    Parameters
    ----------
    config : ModelConfig
    irreps_before : e3nn.o3.Irreps, optional
        Irreps of the features of the electronegativity stage, if they are shared.
    """

    def __init__(self, config: ModelConfig, irreps_before: o3.Irreps | None = None) -> None:
        super().__init__()
        self.num_types = len(config.type_names)
        self.sees_charges = config.equilibration
        self.charge_min, self.charge_max = float(config.charge_min), float(config.charge_max)
        self.num_charge_basis = config.num_charge_basis
        num_attributes, layers = self.num_types, config.num_layers_charge
        if self.sees_charges:
            num_attributes += config.num_charge_basis
        else:
            layers += config.num_layers
        self.convolutions = _Convolutions(
            config, num_attributes, layers, config.charge_cutoff, irreps_before
        )
        hidden = max(1, config.num_features // 2)
        self.readout = ScalarReadout(self.convolutions.irreps_out, hidden)

    def forward(
        self,
        types: torch.Tensor,
        charges: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        before: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Atomic energies before scale and shift, shape (N,).

        Parameters
        ----------
        types : torch.Tensor, int64, shape (N,)
        charges : torch.Tensor, shape (N,), e
        edge_index, length, harmonics
            As in :class:`ElectronegativityStage`.
        before : torch.Tensor, optional, shape (N, irreps_before.dim)
            Features of that stage; required if they are shared.
        """
        attributes = one_hot(types, self.num_types, harmonics.dtype)
        if self.sees_charges:
            encoded = charge_encoding(
                charges, self.charge_min, self.charge_max, self.num_charge_basis
            )
            attributes = torch.cat((attributes, encoded), dim=-1)
        return self.readout(self.convolutions(attributes, edge_index, length, harmonics, before))
