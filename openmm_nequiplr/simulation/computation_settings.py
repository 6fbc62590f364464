"""Everything that defines the computation of a force, as plain values."""

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

#: Å; charges outside that are wider stand for a mistake in the unit.
WIDEST = 10.0
#: Parameters of a Context that hold the components of a uniform field, V/nm.
FIELD_PARAMETERS = ("electric_field_x", "electric_field_y", "electric_field_z")
#: Parameter of a Context that holds the voltage between electrodes, V.
VOLTAGE_PARAMETER = "electrode_voltage"
#: Parameters that a Context may have besides: charge of the model's atoms (e), factor of the
#: electrostatic energy, and factor of the whole energy of the model.
CONTEXT_PARAMETERS = ("total_charge", "coulomb_scale", "model_scale")
_TUPLES = (
    "symbols", "atoms", "electric_field", "charge_groups", "group_charges", "outside",
    "outside_charges", "parameters", "electrodes",
)  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """What an evaluation depends on besides the geometry; a Context may change it during a run.

    Parameters
    ----------
    field : tuple of 3 float, V/Å, or None
        Uniform field.
    total_charge : float, e
    coulomb_scale : float
        Factor of the electrostatic energy.
    voltage : float, V
        Between electrodes.
    """

    field: tuple[float, ...] | None = None
    total_charge: float = 0.0
    coulomb_scale: float = 1.0
    voltage: float = 0.0


@dataclass(frozen=True)
class ComputationSettings:
    """Everything that defines a :class:`Computation`; plain values, so that it can be pickled.

    Parameters
    ----------
    model : bytes or ModelFile
        A model file (safetensors), or where it is.
    symbols : tuple of str, length N
    periodic : bool
    total_charge : float, e
    long_range : {"openmm", "graph"}
    precision : {"single", "double"}
        Of the network.
    device : str or None
        torch device; ``None`` chooses CUDA where there is one.
    tolerance : float
        Relative force error of the delegated sum.
    coulomb_platform : str or None
        OpenMM platform of the delegated sum.
    skin : float, Å
        How much farther than needed neighbours are searched; it decides how long their list
        lasts, and no result.
    solver, charge_tolerance, max_iterations
        How charges are solved for, see :class:`openmm_nequiplr.model.solving.SolverOptions`.
    atoms : tuple of int, length N, or None
        Particles of the System that the model acts on; ``None`` stands for all.
    whole : tuple of tuple of float, shape (3, 3), Å, or None
        Rows are box vectors, if the model is one of isolated molecules and there is a box: atoms
        are taken at the images that belong together, whichever the State has. A State's own box
        counts where it tells one.
    electric_field : tuple of 3 float, V/nm, or None
        Uniform field at the start; ``None`` without the parameters of a Context that change it.
    charge_groups : tuple of int, length N, or None
        Group of each atom, from 0 to F − 1, where the charges of groups are held.
    group_charges : tuple of float, length F, or None, e
    outside : tuple of int, length M, or None
        Particles of the System whose charges the model feels.
    outside_charges : tuple of float, length M, e, or None
    outside_width : float, Å
        Gaussian width of these charges.
    slab : bool
        Whether the box is that of a slab, whose normal is z.
    parameters : tuple of str
        Which of :data:`CONTEXT_PARAMETERS` the Context has.
    electrodes : tuple of 2 tuple of int, or None
        Which of the N atoms are those of the first and of the second electrode.
    electrode_voltage : float, V
        Potential of the first one less that of the second, at the start.
    replicas : int
        Copies of one system that the atoms are, one after another; the groups are the copies.
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
        """Particles of the System that the force acts on, the model's first; ``None`` for all."""
        return self.atoms if self.outside is None else (*(self.atoms or ()), *self.outside)

    @property
    def boxed(self) -> bool:
        """Whether there is a box that results depend on."""
        return self.periodic or (self.whole is not None and self.outside is not None)

    @property
    def pbc(self) -> Pbc:
        """Directions in which the structure is periodic."""
        if self.slab:
            return SLAB
        return BULK if self.periodic else FREE

    @property
    def context_parameters(self) -> dict[str, float]:
        """Parameters of a Context and their values at the start."""
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
        """The conditions that parameters of a Context set; those not given are as at the start."""
        given = {**self.context_parameters, **values}
        field = None
        if self.electric_field is not None:
            field = tuple(given[name] / ANGSTROM_PER_NM for name in FIELD_PARAMETERS)
        charge = given.get("total_charge", self.total_charge)
        scale, voltage = given.get("coulomb_scale", 1.0), given.get(VOLTAGE_PARAMETER, 0.0)
        return Conditions(field, charge, scale, voltage)

    @property
    def charge_conditions(self) -> ChargeConditions:
        """What drives and holds the charges at the start, with the field in V/Å."""
        values = {each.name: getattr(self, each.name) for each in fields(ChargeConditions)}
        if self.electric_field is not None:
            values["electric_field"] = np.array(self.electric_field) / ANGSTROM_PER_NM
        return ChargeConditions(**values)

    def check_field(self, config: ModelConfig) -> None:
        """Refuse a field that has no meaning for a model, see :func:`.check_field`."""
        field = self.charge_conditions.electric_field
        if field is not None:
            normal = (0.0, 0.0, 1.0) if self.slab else None
            between = self.periodic and (self.charge_groups is None or self.replicas > 1)
            check_field(config, between, field, normal)

    @property
    def solver_options(self) -> SolverOptions:
        """How charges are solved for."""
        return SolverOptions(self.solver, self.charge_tolerance, self.max_iterations)

    def delegated_sum(self, device: str | None = None) -> PointChargeCoulomb:
        """The point-charge sum that OpenMM does, for a network on a torch device.

        Raises
        ------
        InputError, BackendError
            If tolerance or platform make no sense.
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
        """All fields but the model, as values that JSON can hold."""
        names = (each.name for each in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "model"}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any], **more: Any) -> ComputationSettings:
        """Rebuild from :meth:`plain` and the model, also after a passage through JSON.

        Raises
        ------
        TypeError
            If a name is missing or unknown.
        """
        values = {**values, **more}
        values.pop("cutoff", None)  # of earlier versions
        for name in _TUPLES:
            if isinstance(values.get(name), list):
                values[name] = tuple(
                    tuple(each) if isinstance(each, list) else each for each in values[name]
                )
        return cls(**values)


#: What is right for settings of unknown origin, and what to say where it is not.
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
    """Settings of unknown origin, as of :meth:`ComputationSettings.of_plain`, checked one by one.

    Raises
    ------
    InputError, UnknownElementError
        If one is missing, unknown or wrong.
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
    """Whether these are three independent vectors."""
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
