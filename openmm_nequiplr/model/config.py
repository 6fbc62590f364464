"""Configuration of a model: everything that defines it apart from its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ase.data import atomic_numbers, covalent_radii

from ..errors import InputError, describe, unknown
from ..units import COULOMB_CONSTANT
from .config_checks import check


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of a :class:`~openmm_nequiplr.model.NequIPLRPotential`, stored in its file.

    Parameters
    ----------
    type_names : tuple of str
        Element symbols; the index in this tuple is the atom type.
    r_max : float, Å
        Cutoff of the electronegativity stage.
    num_layers : int
        Number of convolutions of the electronegativity stage.
    num_layers_charge : int
        Number of convolutions of the energy stage, which depends on the charges. With 0 the
        short-range energy depends only on the elements, and the structure enters through the
        electrostatics.
    l_max : int
        Highest degree of the spherical harmonics and of the features.
    parity : bool
        Whether features have odd or even parity (O(3)), or all are even (SO(3)). In the latter
        case, with three or more layers, the energy of a mirror image may differ.
    num_features : int
        Multiplicity of every irrep.
    avg_num_neighbors : float
        Mean number of neighbours within ``r_max`` in the training data.
    num_bessels : int
        Number of Bessel functions in the radial basis.
    bessel_trainable : bool
        Whether the frequencies of the Bessel functions are trained.
    polynomial_cutoff_p : float
        Exponent p of the polynomial cutoff function of the radial basis.
    invariant_layers : int
        Number of hidden layers of the radial network.
    invariant_neurons : int
        Width of the hidden layers of the radial network.
    r_max_charge : float, optional, Å
        Cutoff of the energy stage; by default ``r_max``.
    charge_min, charge_max : float, e
        Lowest and highest charge of the charge basis.
    num_charge_basis : int
        Number of Gaussian functions in the charge basis.
    equilibration : bool
        Whether the model has charges. Without them the layers of both stages form one short-range
        network for the energy, with the cutoff ``r_max``. Charges and dipoles are then zero, and
        the total charge and all options of the electrostatics are ignored. Such models serve as a
        baseline for long-range models.
    electrostatic_energy : {"qeq", "coulomb"}
        Electrostatic part of the energy: the whole functional χ·Q + ½JQ² + Coulomb, or the Coulomb
        part alone (the convention of 4G-HDNNP).
    coulomb_constant : float, eV Å/e²
        Coulomb constant of the model; in some converted models it is not the physical constant.
    gaussian_widths : tuple of float, optional, Å
        Gaussian width σ of each type; by default the covalent radii.
    hardness_min : float, eV/e²
        Lower bound of the hardness: J = hardness_min + (learned)².
    effective_charges : bool
        Use Q_i + Z_i instead of Q_i in the Coulomb sums, with a learned constant Z for each element
        (minus the mean over the structure). Partial charges of a population analysis are much
        smaller than the effective charges of ions in a field; Z compensates for this.
    shared_features : bool
        Initialise the energy stage with the final features of the electronegativity stage, in
        addition to the embedding of elements and charges. The layers of both stages then contribute
        to the energy. Otherwise, as in the paper, only the charges connect the stages.
    zbl : bool
        Add the Ziegler-Biersack-Littmark repulsion. For each pair of elements its cutoff is their
        entry in ``shortest_distances``, or the cutoff of the energy stage without that table.
    shortest_distances : tuple of tuple of float, optional, Å
        Shortest distance in the training data for each pair of types. Much shorter distances are
        replaced in the input of the network (:class:`~openmm_nequiplr.nn.DistanceFloor`). With None
        all distances are used unchanged.
    electronegativity_bound : float, optional
        Bound of the predicted χ, by a hyperbolic tangent, in units of the model's scale of χ and
        relative to its shift (1 eV/e and 0 unless fitted to reference charges). With None χ is
        unbounded, and so are the charges where the network extrapolates.
    pseudotensors : bool
        With parity, whether there are features whose parity differs from that of the spherical
        harmonics of their degree (pseudoscalars, pseudovectors, …). Without them a layer costs as
        little as without parity.
    isolated : bool
        Treat structures as isolated even if they have a cell. For data that were computed without
        periodic images and stored with a box.
    use_sc : bool
        Use self-connections.
    resnet : bool
        Use residual updates.
    nonlinearity_scalars : tuple of two str
        Activation functions of even and odd scalars ("silu", "ssp", "tanh", "abs").
    nonlinearity_gates : tuple of two str
        Activation functions of even and odd gates ("silu", "ssp", "tanh", "abs").
    scalar_last_layer : bool
        Omit unused features from the last layer of each stage (all except even scalars, unless
        features are shared). The function is unchanged; converted models have the whole layer.
    legacy_periodic : bool
        Reproduce the published code in periodic cells: diagonal A, no χ·Q. For converted
        models only.
    legacy_nonperiodic : bool
        Reproduce the published non-periodic code, whose A has no proper diagonal. For converted
        models only.
    legacy_ewald_cutoff : bool
        Truncate the Gaussian correction of periodic cells at the cutoff of the authors' code. For
        converted models only.
    """

    type_names: tuple[str, ...]
    r_max: float
    num_layers: int = 2
    num_layers_charge: int = 1
    l_max: int = 1
    parity: bool = True
    num_features: int = 16
    avg_num_neighbors: float = 12.0
    num_bessels: int = 8
    bessel_trainable: bool = True
    polynomial_cutoff_p: float = 6.0
    invariant_layers: int = 2
    invariant_neurons: int = 64
    r_max_charge: float | None = None
    charge_min: float = -1.0
    charge_max: float = 1.0
    num_charge_basis: int = 8
    equilibration: bool = True
    electrostatic_energy: str = "qeq"
    coulomb_constant: float = COULOMB_CONSTANT
    gaussian_widths: tuple[float, ...] | None = None
    hardness_min: float = 0.1
    effective_charges: bool = False
    shared_features: bool = False
    zbl: bool = False
    shortest_distances: tuple[tuple[float, ...], ...] | None = None
    electronegativity_bound: float | None = None
    pseudotensors: bool = True
    isolated: bool = False
    use_sc: bool = True
    resnet: bool = False
    nonlinearity_scalars: tuple[str, str] = ("silu", "tanh")
    nonlinearity_gates: tuple[str, str] = ("silu", "tanh")
    scalar_last_layer: bool = True
    legacy_periodic: bool = False
    legacy_nonperiodic: bool = False
    legacy_ewald_cutoff: bool = False

    def __post_init__(self) -> None:
        check(self)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic number of each type."""
        return tuple(int(atomic_numbers[name]) for name in self.type_names)

    @property
    def widths(self) -> tuple[float, ...]:
        """Gaussian width σ of each type, Å."""
        if self.gaussian_widths is not None:
            return self.gaussian_widths
        return tuple(float(covalent_radii[number]) for number in self.numbers)

    @property
    def charge_cutoff(self) -> float:
        """Cutoff of the energy stage, Å."""
        return self.r_max if self.r_max_charge is None else self.r_max_charge

    @property
    def repulsion_cutoffs(self) -> tuple[tuple[float, ...], ...]:
        """Cutoff of the ZBL repulsion of each pair of types, Å."""
        count = len(self.type_names)
        given = self.shortest_distances or ((self.charge_cutoff,) * count,) * count
        return tuple(tuple(min(d, self.charge_cutoff) for d in row) for row in given)

    @property
    def distance_floors(self) -> tuple[tuple[float, ...], ...] | None:
        """Shortest unmodified distance of each pair of types, Å; None without a table."""
        if self.shortest_distances is None:
            return None
        least = min(self.r_max, self.charge_cutoff)
        return tuple(tuple(min(d, least) for d in row) for row in self.shortest_distances)

    @property
    def receptive_field(self) -> float:
        """Range of the network, without the electrostatics, Å."""
        return self.num_layers * self.r_max + self.num_layers_charge * self.charge_cutoff

    @property
    def num_weights(self) -> float:
        """Upper bound of the number of weights, of the right order of magnitude."""
        degrees = range(self.l_max + 1)
        parities = 2 if self.parity else 1
        irreps, features = parities * len(degrees), self.num_features
        triples = [(a, b, c) for a in degrees for b in degrees for c in degrees]
        paths = parities * sum(abs(a - b) <= c <= a + b for a, b, c in triples)
        total = 0.0
        for layers, attributes in (
            (self.num_layers, len(self.type_names)),
            (self.num_layers_charge, len(self.type_names) + self.num_charge_basis),
        ):
            radial = self.num_bessels + (self.invariant_layers - 1) * self.invariant_neurons
            radial = self.invariant_neurons * (max(radial, 0) + paths * features)
            mixing = features**2 * (paths + irreps * (2 + 2 * attributes))
            total += layers * (radial + mixing)
        return total

    def sees_images(self, periodic: bool) -> bool:
        """Whether the model treats a structure as periodic."""
        return periodic and not self.isolated

    def has_coulomb_sum(self, periodic: bool) -> bool:
        """Whether charges interact; those of the published periodic code do not."""
        return self.equilibration and not (self.legacy_periodic and periodic)

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain values for JSON and YAML."""
        fields = dataclasses.asdict(self)
        return {k: _plain(v) for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Create from the result of :meth:`to_dict`.

        Raises
        ------
        InputError
            If a name is unknown, one is missing, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise InputError(describe("model configuration", values, "names and values"))
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(unknown("key", name, known, "model configuration"))
        missing = sorted({"type_names", "r_max"} - set(values))
        if missing:
            raise InputError(describe("model configuration", f"none of {missing}", "all of them"))
        return cls(**values)


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
