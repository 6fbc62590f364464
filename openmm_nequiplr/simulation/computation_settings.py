"""Settings that define the computation of a force, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..boundaries import BULK, FREE, SLAB, Pbc
from ..checks import is_number
from ..conditions import ChargeConditions, check_voltage
from ..errors import InputError, UnknownElementError, describe
from ..fragments import read_groups
from ..model.config import ModelConfig
from ..model.geometry_checks import check_electrodes, check_field
from ..model.options import DTYPES
from ..model.solving import DEFAULT_CHARGE_TOLERANCE, DEFAULT_MAX_ITERATIONS, SolverOptions
from ..units import ANGSTROM_PER_NM
from ..verlet import DEFAULT_SKIN
from .pme import DEFAULT_TOLERANCE, PointChargeCoulomb
from .replicas import check_replicas, replica_labels
from .serialization import ModelFile, shared_embedded

#: Upper bound of the width of external charges, Å; a larger one indicates a wrong unit.
WIDEST = 10.0
#: Context parameters for the components of a uniform electric field, V/nm.
FIELD_PARAMETERS = ("electric_field_x", "electric_field_y", "electric_field_z")
#: Context parameter for the voltage between the electrodes, V.
VOLTAGE_PARAMETER = "electrode_voltage"
#: Other optional Context parameters: total charge of the model's atoms (e), scaling factor of the
#: electrostatic energy, and scaling factor of the energy of the model.
CONTEXT_PARAMETERS = ("total_charge", "coulomb_scale", "model_scale")
_TUPLES = (
    "symbols", "atoms", "electric_field", "charge_groups", "group_charges", "outside",
    "outside_charges", "parameters", "electrodes",
)  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """Variables other than the geometry that a Context may change during a run.

    Parameters
    ----------
    field : tuple of 3 float, V/Å, or None
        Uniform electric field.
    total_charge : float, e
    coulomb_scale : float
        Scaling factor of the electrostatic energy.
    voltage : float, V
        Between the electrodes.
    """

    field: tuple[float, ...] | None = None
    total_charge: float = 0.0
    coulomb_scale: float = 1.0
    voltage: float = 0.0


@dataclass(frozen=True)
class ComputationSettings:
    """Settings that define a :class:`Computation`; plain values that can be pickled.

    Parameters
    ----------
    model : bytes or ModelFile
        Content of a model file (safetensors), or a reference to the file.
    symbols : tuple of str, length N
    periodic : bool
    total_charge : float, e
    long_range : {"openmm", "graph"}
    precision : {"single", "double"}
        Of the network.
    device : str or None
        torch device; by default CUDA if available.
    tolerance : float
        Relative force error of the Coulomb sum that OpenMM computes.
    coulomb_platform : str or None
        OpenMM platform of this sum.
    skin : float, Å
        Added to the cutoff of the neighbour list. It determines how often the list is rebuilt, and
        does not affect results.
    solver, charge_tolerance, max_iterations
        Charge solver, see :class:`openmm_nequiplr.model.solving.SolverOptions`.
    atoms : tuple of int, length N, or None
        Particles of the System that the model acts on; ``None`` stands for all.
    whole : tuple of tuple of float, shape (3, 3), Å, or None
        Rows are box vectors. Set if a model of isolated molecules is used in a box: molecules are
        made whole, whichever images the State contains. The box of a State takes precedence.
    electric_field : tuple of 3 float, V/nm, or None
        Initial uniform field; ``None`` if the Context has no field parameters.
    charge_groups : tuple of int, length N, or None
        Group of each atom, from 0 to F − 1, if the total charges of groups are constrained.
    group_charges : tuple of float, length F, or None, e
    outside : tuple of int, length M, or None
        Particles of the System whose charges act on the model (external charges).
    outside_charges : tuple of float, length M, e, or None
    outside_width : float, Å
        Gaussian width of the external charges.
    slab : bool
        Whether the box contains a slab with normal z.
    parameters : tuple of str
        The :data:`CONTEXT_PARAMETERS` that the Context has.
    electrodes : tuple of 2 tuple of int, or None
        Indices, among the N atoms, of the first and of the second electrode.
    electrode_voltage : float, V
        Initial potential of the first electrode minus that of the second.
    replicas : int
        Number of consecutive copies of one system; each copy is a charge group.
    """

    model: bytes | ModelFile = field(repr=False)
    symbols: tuple[str, ...] = field(repr=False)
    periodic: bool
    total_charge: float = 0.0
    long_range: str = "openmm"
    precision: str = "single"
    device: str | None = None
    tolerance: float = DEFAULT_TOLERANCE
    coulomb_platform: str | None = None
    skin: float = DEFAULT_SKIN
    solver: str = "auto"
    charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    atoms: tuple[int, ...] | None = field(default=None, repr=False)
    whole: tuple[tuple[float, ...], ...] | None = field(default=None, repr=False)
    electric_field: tuple[float, ...] | None = None
    charge_groups: tuple[int, ...] | None = field(default=None, repr=False)
    group_charges: tuple[float, ...] | None = field(default=None, repr=False)
    outside: tuple[int, ...] | None = field(default=None, repr=False)
    outside_charges: tuple[float, ...] | None = field(default=None, repr=False)
    outside_width: float = 0.0
    slab: bool = False
    parameters: tuple[str, ...] = ()
    electrodes: tuple[tuple[int, ...], ...] | None = None
    electrode_voltage: float = 0.0
    replicas: int = 1

    @property
    def particles(self) -> tuple[int, ...] | None:
        """Particles that the force acts on, those of the model first; ``None`` for all."""
        return self.atoms if self.outside is None else (*(self.atoms or ()), *self.outside)

    @property
    def boxed(self) -> bool:
        """Whether results depend on a periodic box."""
        return self.periodic or (self.whole is not None and self.outside is not None)

    @property
    def pbc(self) -> Pbc:
        """Directions in which the structure is periodic."""
        if self.slab:
            return SLAB
        return BULK if self.periodic else FREE

    @property
    def context_parameters(self) -> dict[str, float]:
        """Context parameters and their initial values."""
        values = (
            {}
            if self.electric_field is None
            else dict(zip(FIELD_PARAMETERS, self.electric_field, strict=True))
        )
        if self.electrodes is not None:
            values[VOLTAGE_PARAMETER] = self.electrode_voltage
        start = {"total_charge": self.total_charge, "coulomb_scale": 1.0, "model_scale": 1.0}
        return {**values, **{name: start[name] for name in self.parameters}}

    def conditions(self, values: Mapping[str, float]) -> Conditions:
        """The conditions for values of Context parameters; missing ones keep initial values."""
        given = {**self.context_parameters, **values}
        field = None
        if self.electric_field is not None:
            field = tuple(given[name] / ANGSTROM_PER_NM for name in FIELD_PARAMETERS)
        charge = given.get("total_charge", self.total_charge)
        scale, voltage = given.get("coulomb_scale", 1.0), given.get(VOLTAGE_PARAMETER, 0.0)
        return Conditions(field, charge, scale, voltage)

    @property
    def charge_conditions(self) -> ChargeConditions:
        """Initial field (V/Å), electrodes and charge constraints."""
        values = {each.name: getattr(self, each.name) for each in fields(ChargeConditions)}
        if self.electric_field is not None:
            values["electric_field"] = np.array(self.electric_field) / ANGSTROM_PER_NM
        return ChargeConditions(**values)

    def check_field(self, config: ModelConfig) -> None:
        """Check that the model supports the electric field, see :func:`.check_field`."""
        field = self.charge_conditions.electric_field
        if field is not None:
            normal = (0.0, 0.0, 1.0) if self.slab else None
            between = self.periodic and (self.charge_groups is None or self.replicas > 1)
            check_field(config, between, field, normal)

    @property
    def solver_options(self) -> SolverOptions:
        """Options of the charge solver."""
        return SolverOptions(self.solver, self.charge_tolerance, self.max_iterations)

    def delegated_sum(self, device: str | None = None) -> PointChargeCoulomb:
        """The point-charge Coulomb sum of OpenMM, for a network on a torch device.

        Raises
        ------
        InputError, BackendError
            If the tolerance or the platform is invalid.
        """
        return PointChargeCoulomb(
            len(self.symbols),
            self.periodic,
            tolerance=self.tolerance,
            precision=self.precision,
            platform=self.coulomb_platform,
            device=device or self.device,
        )

    def plain(self) -> dict[str, Any]:
        """All fields except the model, as values that JSON can store."""
        names = (each.name for each in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "model"}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any], **more: Any) -> ComputationSettings:
        """Rebuild settings from :meth:`plain` and the model, also after conversion to JSON.

        Raises
        ------
        TypeError
            If a name is missing or unknown.
        """
        values = {**values, **more}
        values.pop("cutoff", None)  # written by earlier versions
        for name in _TUPLES:
            if isinstance(values.get(name), list):
                values[name] = tuple(
                    tuple(each) if isinstance(each, list) else each for each in values[name]
                )
        return cls(**values)


#: Check and expected value of each setting of unknown origin.
_RIGHT: dict[str, tuple[Callable[[ComputationSettings], bool], str]] = {
    "symbols": (lambda s: _all(s.symbols, str), "element symbols"),
    "periodic": (lambda s: isinstance(s.periodic, bool), "true or false"),
    "slab": (lambda s: s.slab in (False, s.periodic), "true only with a box"),
    "total_charge": (lambda s: is_number(s.total_charge), "a number"),
    "long_range": (lambda s: s.long_range in ("openmm", "graph"), "'openmm' or 'graph'"),
    "precision": (lambda s: s.precision in tuple(DTYPES), "'single' or 'double'"),
    "device": (lambda s: isinstance(s.device, str | None), "a name or nothing"),
    "tolerance": (lambda s: is_number(s.tolerance), "a number"),
    "coulomb_platform": (lambda s: isinstance(s.coulomb_platform, str | None), "a name"),
    "skin": (lambda s: is_number(s.skin) and 0 <= s.skin <= 10, "a number from 0 to 10"),
    "electric_field": (
        lambda s: s.electric_field is None or _is_field(s.electric_field),
        "three numbers (V/nm)",
    ),
    "whole": (lambda s: s.whole is None or _is_box(s.whole), "three box vectors (Å)"),
    "parameters": (
        lambda s: set(s.parameters) <= set(CONTEXT_PARAMETERS),
        "some of " + ", ".join(CONTEXT_PARAMETERS),
    ),
    "atoms": (
        lambda s: s.atoms is None or (_indices(s.atoms) and len(set(s.atoms)) == len(s.symbols)),
        "different indices, as many as symbols",
    ),
    "outside": (
        lambda s: (
            s.outside is None or (_indices(s.outside) and not set(s.outside) & set(s.atoms or ()))
        ),
        "indices of other particles",
    ),
    "outside_charges": (
        lambda s: (
            s.outside is s.outside_charges is None
            or (
                _all(s.outside_charges, float)
                and len(s.outside or ()) == len(s.outside_charges or ())
            )
        ),
        "a number for each particle outside",
    ),
    "outside_width": (
        lambda s: is_number(s.outside_width) and 0 <= s.outside_width < WIDEST,
        f"a number from 0 to {WIDEST:g}",
    ),
}


def checked_settings(values: Mapping[str, Any]) -> ComputationSettings:
    """Settings of unknown origin, see :meth:`ComputationSettings.of_plain`, checked one by one.

    Raises
    ------
    InputError, UnknownElementError
        If a setting is missing, unknown or invalid.
    """
    try:
        settings = ComputationSettings.of_plain(values)
    except TypeError as error:
        raise InputError(f"system: its settings are incomplete: {error}") from error
    for name, (right, expected) in _RIGHT.items():
        if not right(settings):
            raise InputError(describe(f"system: {name}", getattr(settings, name), expected))
    _ = settings.solver_options  # checks them
    symbols, config = settings.symbols, shared_embedded(settings.model).config
    try:
        settings.check_field(config)
        check_electrodes(config, len(symbols), settings.electrodes)
        check_voltage(settings.electrode_voltage, settings.electrodes)
        copies = check_replicas(settings.replicas, symbols)
        if copies > 1 and settings.charge_groups != replica_labels(len(symbols), copies):
            raise InputError(describe("charge_groups", "others", "the replicas"))
        groups = settings.charge_groups, settings.group_charges
        read_groups(len(symbols), *groups, settings.total_charge)
    except InputError as error:
        raise InputError(f"system: {error}") from None
    strangers = sorted(set(symbols) - set(config.type_names))
    if strangers:
        expected = f"some of {config.type_names}"
        raise UnknownElementError(describe("system: symbols", strangers, expected))
    return settings


def _is_field(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(map(is_number, values))


def _is_box(vectors: Any) -> bool:
    """Whether the values are three linearly independent, right-handed vectors."""
    try:
        box = np.array(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return box.shape == (3, 3) and bool(np.isfinite(box).all()) and np.linalg.det(box) > 0.0


def _all(values: Any, kind: type) -> bool:
    if not isinstance(values, tuple) or not values:
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _indices(values: Any) -> bool:
    return _all(values, int) and min(values) >= 0
