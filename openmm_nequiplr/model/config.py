"""Everything that defines a model apart from its weights."""

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
    """Configuration of a :class:`~openmm_nequiplr.model.NequIPLRPotential`, written into its file.

    Parameters
    ----------
    type_names : tuple of str
        Element symbols; the index in this tuple is the atom type.
    r_max : float, Å
        Cutoff of the electronegativity stage.
    num_layers : int
        Convolutions of the electronegativity stage.
    num_layers_charge : int
        Convolutions of the energy stage, which sees the charges. With 0 the short-range energy
        depends on the element alone and the structure enters by the electrostatics.
    l_max : int
        Highest degree of the spherical harmonics and of the features.
    parity : bool
        Whether features of odd and even parity are told apart (O(3)) or not (even ones only: SO(3),
        and from three layers on an energy may differ from that of the mirror image).
    num_features : int
        Multiplicity of every irrep.
    avg_num_neighbors : float
        Mean number of neighbours within ``r_max`` of the training data.
    num_bessels : int
        Bessel functions in the radial basis.
    bessel_trainable : bool
        Whether the frequencies of the Bessel functions are trained.
    polynomial_cutoff_p : float
        Exponent p of the polynomial cutoff function of the radial basis.
    invariant_layers : int
        Hidden layers of the radial network.
    invariant_neurons : int
        Width of the hidden layers of the radial network.
    r_max_charge : float, optional, Å
        Cutoff of the energy stage; ``r_max`` when None.
    charge_min, charge_max : float, e
        Lowest (highest) charge of the charge basis.
    num_charge_basis : int
        Gaussian functions in the charge basis.
    equilibration : bool
        Whether there are charges. Without them the layers of both stages are one short-range
        network for the energy, with ``r_max`` everywhere: charges and dipoles are zero, the total
        charge is without effect, and all that concerns electrostatics is ignored. It is what
        long-range models are compared with.
    electrostatic_energy : {"qeq", "coulomb"}
        Electrostatic part of the energy: the whole functional χ·Q + ½JQ² + Coulomb, or the Coulomb
        part alone (the convention of 4G-HDNNP).
    coulomb_constant : float, eV Å/e²
        Coulomb constant of the model; some converted models have another than the physical one.
    gaussian_widths : tuple of float, optional, Å
        Gaussian width σ of each type; covalent radii when None.
    hardness_min : float, eV/e²
        Lower bound of the hardness: J = hardness_min + (learned)².
    effective_charges : bool
        Let the Coulomb sums see Q_i + Z_i, with a learned constant Z for each element (less the
        mean over the structure), instead of Q_i alone. Partial charges of a population analysis
        are much smaller than the charges with which ions feel a field; Z makes up for it.
    shared_features : bool
        Let the energy stage start from the features that the electronegativity stage ends with,
        beside the embedding of elements and charges, so that the layers of both count for the
        energy. Otherwise, as in the paper, charges are all that comes from the first stage.
    zbl : bool
        Add the Ziegler-Biersack-Littmark repulsion. For each pair of elements it ends at their
        entry in ``shortest_distances``, or at the cutoff of the energy stage without that table.
    shortest_distances : tuple of tuple of float, optional, Å
        Shortest distance in the training data for each pair of types. The network sees no
        distance that is much shorter (:class:`~openmm_nequiplr.nn.DistanceFloor`). With None it
        sees all distances as they are.
    electronegativity_bound : float, optional
        Bounds the predicted χ by a hyperbolic tangent to ± this many of the model's scales of χ
        about its shift (1 eV/e and 0 unless fitted to reference charges). With None it is
        unbounded, and so are the charges where the network extrapolates.
    pseudotensors : bool
        With parity, whether features include those whose parity differs from that of the
        spherical harmonics of their degree (pseudoscalars, pseudovectors, …). Without them a
        layer costs no more than without parity.
    isolated : bool
        Treat structures as isolated even where they come with a cell. For data that were computed
        without periodic images and stored with a box.
    use_sc : bool
        Use self-connections.
    resnet : bool
        Use residual updates.
    nonlinearity_scalars : tuple of two str
        Activations of even and odd scalars ("silu", "ssp", "tanh", "abs").
    nonlinearity_gates : tuple of two str
        Activations of even and odd gates ("silu", "ssp", "tanh", "abs").
    scalar_last_layer : bool
        Leave out of the last layer of each stage what nothing uses (all but even scalars, where
        features are not shared). The same function; weights of converted models hold the whole
        layer.
    legacy_periodic : bool
        Reproduce the published code in periodic cells: diagonal A, no χ·Q. For converted
        models only.
    legacy_nonperiodic : bool
        Reproduce the published code without periodicity: A has no diagonal of its own. For
        converted models only.
    legacy_ewald_cutoff : bool
        Cut the Gaussian correction of periodic cells where the authors' code cuts it. For
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
        """Where the ZBL repulsion of each two types ends, Å."""
        count = len(self.type_names)
        given = self.shortest_distances or ((self.charge_cutoff,) * count,) * count
        return tuple(tuple(min(d, self.charge_cutoff) for d in row) for row in given)

    @property
    def distance_floors(self) -> tuple[tuple[float, ...], ...] | None:
        """Distances below which those that the network sees level off, Å; None without any."""
        if self.shortest_distances is None:
            return None
        least = min(self.r_max, self.charge_cutoff)
        return tuple(tuple(min(d, least) for d in row) for row in self.shortest_distances)

    @property
    def receptive_field(self) -> float:
        """Farthest distance that the network (not the electrostatics) can see, Å."""
        return self.num_layers * self.r_max + self.num_layers_charge * self.charge_cutoff

    @property
    def num_weights(self) -> float:
        """About how many weights there are, from above; not many times too large."""
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
        """Whether a structure that is periodic, or not, is so to the model."""
        return periodic and not self.isolated

    def has_coulomb_sum(self, periodic: bool) -> bool:
        """Whether charges interact and respond; those of the published periodic code do not."""
        return self.equilibration and not (self.legacy_periodic and periodic)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values (JSON and YAML can hold them)."""
        fields = dataclasses.asdict(self)
        return {k: _plain(v) for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Rebuild from :meth:`to_dict`; unknown names are refused.

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
