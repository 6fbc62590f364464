"""Options of a force: checks, and conversion to the settings of its computation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from openmm import app

from ..boundaries import check_slab, made_for_periodic
from ..checks import check_choice, is_whole
from ..conditions import plain_electrodes, with_electrodes
from ..costs import default_device
from ..errors import BoxError, InputError, describe
from ..fragments import Fragments
from ..model import ModelConfig, NequIPLRPotential
from ..model.geometry_checks import check_electrodes, check_surrounded
from ..model.io import read_model_file, serialize_model, shared_models
from ..model.options import DTYPES, EvaluationOptions
from ..pretrained import model_path
from ..total_charge import assume_neutral, check_trained
from .box import ReducedBox, compact_box
from .charge_groups import (
    plain_charges,
    plain_groups,
    topology_electrodes,
    topology_groups,
)
from .computation_settings import CONTEXT_PARAMETERS, WIDEST, ComputationSettings
from .mdtraj_topology import openmm_topology
from .pme_plan import DEFAULT_TOLERANCE, check_tolerance, plan_pme
from .quantities import plain_charge, plain_field, plain_length, plain_voltage
from .replicas import check_replicas, refuse_with_replicas, replica_charges, replica_labels
from .serialization import ModelFile
from .topology_checks import check_atoms, topology_box, topology_symbols

if TYPE_CHECKING:
    import mdtraj

LONG_RANGE = ("auto", "openmm", "graph")


@dataclass(frozen=True)
class ForceOptions(EvaluationOptions):
    """Options of the force by which OpenMM evaluates a model.

    Parameters
    ----------
    long_range : {"auto", "openmm", "graph"}
        Where the Coulomb energy is computed: in an OpenMM NonbondedForce (particle mesh Ewald in a
        box), or by an equivalent sum in torch, which has no minimum box size. OpenMM computes only
        the reciprocal part; the pair sum of point charges and their Gaussian correction is computed
        here. ``"auto"`` is ``"openmm"``, except for iterative charge solvers in a periodic box or
        on a GPU, whose own sum provides the energy at a fraction of the cost.
    backend : {"auto", "python", "torch", "python_torch"}
        How OpenMM calls the model. ``"python"`` is a ``PythonForce``. ``"torch"`` is a
        ``TorchForce`` of openmm-torch, with network, charges and energy in one TorchScript graph
        (with release 1.5 on platforms Reference and CPU, see also
        :func:`~openmm_nequiplr.simulation.deserialize_system`). ``"python_torch"`` is the
        ``PythonTorchForce`` of its next release, whose positions and forces stay on the GPU.
        ``"auto"`` is ``"python"``.
    ewald_tolerance : float
        Target relative error of the Coulomb forces from OpenMM's mesh. Charges come from an exact
        sum, so the mesh error appears as an inconsistency of energy and forces.
    coulomb_platform : str, optional
        OpenMM platform of the Coulomb sum. By default it runs on the GPU of the network. With a
        network on the CPU it runs on platform CPU, or on Reference for double precision.
    electric_field : sequence of 3 float (V/nm) or Quantity, optional
        Uniform field, which acts on the charges and polarises them, for isolated structures and
        along z for slabs. Its components are the Context parameters
        :data:`.computation_settings.FIELD_PARAMETERS` (V/nm), which may change during a run (not
        with backend ``"torch"``). For a field that is switched on later, start with (0, 0, 0).
    charge_groups : "molecules", sequence of sequences of int, or sequence of int, optional
        Groups of atoms with constrained total charges: the molecules that bonds of the topology
        join, lists of atom indices (atoms in no list form one more group), or a label per atom.
    group_charges : sequence of float, or mapping of str to float, or Quantity, optional, e
        Charges of the groups in order (molecules by their first atoms), or by formula, as in
        ``{"Na": 1, "Cl": -1}`` with 0 for others. By default formal charges of the topology, or 0.
        They must sum to the total charge.
    electrodes : sequence of 2, optional
        The atoms of two electrodes at constant potential: their indices, the identifier of a chain,
        the name of residues, or a text such as ``"0-31,40"``. Charge flows between them through the
        voltage source. Groups of ``charge_groups`` that contain electrode atoms are merged into one
        group with the sum of their charges.
    electrode_voltage : float (V) or Quantity
        Potential of the first electrode minus that of the second. It is the Context parameter
        :data:`.computation_settings.VOLTAGE_PARAMETER`, which may change during a run (not with
        backend ``"torch"``).
    slab : bool
        Whether the box contains a slab: periodic along its first two vectors, with vacuum along the
        third one, parallel to the normal z. Charges then interact as in a single layer (Yeh and
        Berkowitz 1999, doi:10.1063/1.479595).
    device, precision, solver, charge_tolerance, max_iterations
        See :class:`.model.options.EvaluationOptions`. By default the device is CUDA if available
        (see :mod:`openmm_nequiplr.costs`). The Coulomb sum has the same precision. An iterative
        solver that does not converge within ``max_iterations`` stops the simulation with an error.

    Raises
    ------
    InputError
        If a value is invalid.
    BackendError
        If the device does not exist.
    """

    long_range: str = "auto"
    backend: str = "auto"
    ewald_tolerance: float = DEFAULT_TOLERANCE
    coulomb_platform: str | None = None
    electric_field: Any = None
    charge_groups: Any = None
    group_charges: Any = None
    electrodes: Any = None
    electrode_voltage: Any = 0.0
    slab: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.electric_field is not None:
            object.__setattr__(self, "electric_field", plain_field(self.electric_field))
        object.__setattr__(self, "charge_groups", plain_groups(self.charge_groups))
        object.__setattr__(self, "group_charges", plain_charges(self.group_charges))
        object.__setattr__(self, "electrodes", plain_electrodes(self.electrodes))
        voltage = plain_voltage(self.electrode_voltage, self.electrodes)
        object.__setattr__(self, "electrode_voltage", voltage)
        if not isinstance(self.slab, bool):
            raise InputError(describe("slab", self.slab, "True or False"))
        check_choice("long_range", self.long_range, LONG_RANGE)
        check_tolerance(self.ewald_tolerance)


def computation_settings(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    options: ForceOptions,
    *,
    atoms: Sequence[int] | None = None,
    total_charge: Any = None,
    embed_model: bool = True,
    outside_charges: Mapping[int, Any] | None = None,
    outside_width: Any = 0.0,
    parameters: Sequence[str] = (),
    replicas: int = 1,
) -> ComputationSettings:
    """Check the arguments of :func:`~openmm_nequiplr.simulation.create_force`.

    Arguments and errors are those of that function.
    """
    if not isinstance(embed_model, bool):
        raise InputError(describe("embed_model", embed_model, "True or False"))
    reference = None if embed_model else ModelFile.of(model)
    topology, model = openmm_topology(topology), as_model(model)
    chosen = None if atoms is None else check_atoms(atoms, topology.getNumAtoms())
    symbols = topology_symbols(topology, model.config.type_names, chosen)
    cell = topology_box(topology)
    alone = model.config.isolated
    whole = tuple(map(tuple, cell.vectors.tolist())) if alone and cell is not None else None
    box = None if alone else cell
    _check_periodic(box, model)
    if options.slab:
        _check_slab(box, model)
    copies = check_replicas(replicas, symbols)
    own = next((k for k, dtype in DTYPES.items() if dtype == model.dtype), "double")
    electrodes = topology_electrodes(topology, chosen, options.electrodes)
    held: Fragments | None
    if copies > 1:
        others = {"atoms": chosen, "outside_charges": outside_charges or None}
        refuse_with_replicas(options, model, cell is not None, **others)
        each = _held_by_replicas(total_charge, copies, symbols, model)
        held, charge, sums = each, float(each.charges.sum()), "graph"
    else:
        told = None if total_charge is None else plain_charge(total_charge)
        held = _held(topology, chosen, options, told, electrodes, model.config)
        if held is not None:
            total_charge = float(held.charges.sum()) if told is None else told
        charge = _check_charge(total_charge, symbols, model)
        sums = _summed_by(options, model, len(symbols), box is not None)
    several = held is not None and len(held.charges) > 1
    width = plain_length("outside_width", outside_width, WIDEST)
    charges = _check_outside(outside_charges, width, chosen)
    if charges:
        check_surrounded(model.config, box is not None, options.slab)
    settings = ComputationSettings(
        model=serialize_model(model) if reference is None else reference,
        symbols=symbols,
        periodic=box is not None,
        total_charge=charge,
        long_range=sums,
        precision=options.precision or own,
        device=options.device,
        tolerance=float(options.ewald_tolerance),
        coulomb_platform=options.coulomb_platform,
        solver=options.solver,
        charge_tolerance=float(options.charge_tolerance),
        max_iterations=int(options.max_iterations),
        atoms=chosen,
        whole=whole,
        electric_field=options.electric_field,
        charge_groups=tuple(held.groups.tolist()) if held and several else None,
        group_charges=tuple(held.charges.tolist()) if held and several else None,
        outside=tuple(charges) or None,
        outside_charges=tuple(charges.values()) or None,
        outside_width=width,
        slab=options.slab,
        parameters=_check_parameters(parameters, model, box is not None, several, copies),
        electrodes=electrodes,
        electrode_voltage=options.electrode_voltage,
        replicas=copies,
    )
    settings.check_field(model.config)
    if settings.long_range == "openmm":  # raises errors now rather than at the first step
        settings.delegated_sum()
        if box is not None:
            plan_pme(compact_box(box.vectors), settings.tolerance)
    return settings


def _held(
    topology: app.Topology,
    chosen: tuple[int, ...] | None,
    options: ForceOptions,
    told: float | None,
    electrodes: tuple[tuple[int, ...], ...] | None,
    config: ModelConfig,
) -> Fragments | None:
    """Charge groups of the model's atoms; those with electrode atoms are merged."""
    count = topology.getNumAtoms() if chosen is None else len(chosen)
    sides = check_electrodes(config, count, electrodes)
    groups = options.charge_groups, options.group_charges
    held = with_electrodes(topology_groups(topology, chosen, *groups, told, electrodes), sides)
    if held is not None and not config.equilibration:
        expected = "None for a model without charges"
        raise InputError(describe("charge_groups", f"{len(held.charges)} groups", expected))
    return held


def _summed_by(options: ForceOptions, model: NequIPLRPotential, count: int, periodic: bool) -> str:
    """``long_range`` as ``"openmm"`` or ``"graph"``; checks that the solver supports the model."""
    device = default_device(count, options.device)
    iterative = options.iterative(model.config, count, periodic, device)
    if not model.config.has_coulomb_sum(periodic):
        return "graph"
    if options.long_range != "auto":
        return options.long_range
    # on a GPU OpenMM's sum would not be among the recorded kernels
    return "graph" if iterative and (periodic or device != "cpu") else "openmm"


def as_model(model: NequIPLRPotential | str | Path, name: str = "model") -> NequIPLRPotential:
    """The model given as argument ``name``, or read from its file; it must not be modified."""
    if isinstance(model, NequIPLRPotential):
        return model
    if isinstance(model, str | Path):
        path = model_path(model, name)
        return shared_models.get(read_model_file(path), source=str(path))
    raise InputError(
        describe(name, type(model).__name__, "a NequIPLRPotential, a path or a shipped name")
    )


def _check_periodic(box: ReducedBox | None, model: NequIPLRPotential) -> None:
    if box is None and made_for_periodic(model.metadata):
        raise BoxError(
            "topology: expected periodic box vectors, because the model was made for periodic "
            "structures, got none; set them with topology.setPeriodicBoxVectors(), or pass an "
            "mdtraj.Trajectory with unit cells"
        )


def _check_slab(box: ReducedBox | None, model: NequIPLRPotential) -> None:
    if box is None:
        expected = "False for a topology without box, and for a model of isolated molecules"
        raise InputError(describe("slab", True, expected))
    if model.config.legacy_periodic:
        expected = "False for a model of the published code, whose charges see no images"
        raise InputError(describe("slab", True, expected))
    check_slab(box.vectors)


def _check_charge(value: Any, symbols: tuple[str, ...], model: NequIPLRPotential) -> float:
    """The total charge as a number, e; warns of a doubtful value."""
    if value is None:
        where = "total_charge (openmm-ml: totalCharge) is not given"
        return assume_neutral(model.metadata, where)
    value = plain_charge(value)
    config = model.config
    limit = len(symbols) * max(1.0, abs(config.charge_min), abs(config.charge_max))
    if abs(value) > limit:
        raise InputError(
            describe("total_charge", value, f"at most {limit:g} e in size for {len(symbols)} atoms")
        )
    check_trained(model.metadata, value)
    return value


def _held_by_replicas(
    total_charge: Any, copies: int, symbols: tuple[str, ...], model: NequIPLRPotential
) -> Fragments:
    """Replicas as charge groups, with their total charges."""
    count, given = len(symbols) // copies, replica_charges(total_charge, copies)
    known = {each: _check_charge(each, symbols[:count], model) for each in dict.fromkeys(given)}
    groups = np.array(replica_labels(len(symbols), copies))
    return Fragments(groups, np.array([known[each] for each in given]))


def _check_parameters(
    names: Sequence[str], model: NequIPLRPotential, periodic: bool, several: bool, copies: int
) -> tuple[str, ...]:
    """Names of optional Context parameters, checked to have an effect on the model."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputError(describe("parameters", names, "a list of names"))
    chosen = tuple(names)
    for name in chosen:
        check_choice("parameters", name, CONTEXT_PARAMETERS)
        if name != "model_scale" and not model.config.has_coulomb_sum(periodic):
            expected = "no more than 'model_scale' for a model without Coulomb sum"
            raise InputError(describe("parameters", name, expected))
        if name == "total_charge" and several:
            given = "replicas" if copies > 1 else "groups of atoms"
            expected = f"none of that name with {given}, whose charges are constrained"
            raise InputError(describe("parameters", name, expected))
    return tuple(name for name in CONTEXT_PARAMETERS if name in chosen)


def _check_outside(
    charges: Mapping[int, Any] | None, width: float, atoms: tuple[int, ...] | None
) -> dict[int, float]:
    """Non-zero external charges, e, by particle index."""
    if not charges and width != 0.0:
        raise InputError(describe("outside_width", width, "0 without charges outside"))
    if not charges:
        return {}
    if not isinstance(charges, Mapping):
        raise InputError(describe("outside_charges", type(charges).__name__, "a dictionary"))
    if atoms is None:
        expected = "None unless atoms tells which particles are the model's"
        raise InputError(describe("outside_charges", f"{len(charges)} charges", expected))
    found = {}
    for index, value in charges.items():
        if not is_whole(index) or index < 0:
            raise InputError(describe("outside_charges", index, "indices of particles"))
        found[int(index)] = plain_charge(value, f"outside_charges[{index}]")
    twice = sorted(found.keys() & set(atoms))
    if twice:
        expected = "particles that the model does not act on"
        raise InputError(describe("outside_charges", f"its atom {twice[0]}", expected))
    return {index: value for index, value in found.items() if value != 0.0}
