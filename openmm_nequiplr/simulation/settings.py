"""What a computation is to be made of: a user's arguments, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from openmm import app, unit

from ..devices import resolve_device
from ..errors import BoxError, InputError, UnknownElementError, describe
from ..model import NequIPLRPotential
from ..model.io import model_path, read_model_file, serialize_model, shared_models
from ..model.solving import DEFAULT_CHARGE_TOLERANCE, DEFAULT_MAX_ITERATIONS, SolverOptions
from ..total_charge import assume_neutral, check_trained
from ..units import ANGSTROM_PER_NM
from .box import ReducedBox, check_cell, compact_box, reduce_box
from .computation import DTYPES, ComputationSettings
from .mdtraj_topology import openmm_topology
from .pme import DEFAULT_TOLERANCE, PointChargeCoulomb, check_cutoff, plan_pme
from .serialization import ModelFile

if TYPE_CHECKING:
    import mdtraj

LONG_RANGE = ("auto", "openmm", "graph")


def computation_settings(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    *,
    atoms: Sequence[int] | None = None,
    total_charge: Any = None,
    long_range: str = "auto",
    nonbonded_cutoff: Any = None,
    ewald_tolerance: float = DEFAULT_TOLERANCE,
    device: str | None = None,
    precision: str | None = None,
    coulomb_platform: str | None = None,
    solver: str = "auto",
    charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    embed_model: bool = True,
) -> ComputationSettings:
    """Check what a force is to be made of.

    Arguments and errors as those of :func:`~openmm_nequiplr.simulation.create_force`.
    """
    _check_choice("long_range", long_range, LONG_RANGE)
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
    if precision is None:
        precision = next((k for k, dtype in DTYPES.items() if dtype == model.dtype), "double")
    _check_choice("precision", precision, tuple(DTYPES))
    if device is not None:
        resolve_device(device)
    choice = SolverOptions(solver, charge_tolerance, max_iterations)
    settings = ComputationSettings(
        model=serialize_model(model) if reference is None else reference,
        symbols=symbols,
        periodic=box is not None,
        total_charge=_check_charge(total_charge, symbols, model),
        long_range=_summed_by(long_range, choice, model, len(symbols), box is not None),
        precision=precision,
        device=device,
        cutoff=_cutoff_in_angstrom(nonbonded_cutoff),
        tolerance=_plain_number("ewald_tolerance", ewald_tolerance),
        coulomb_platform=coulomb_platform,
        solver=solver,
        charge_tolerance=float(choice.charge_tolerance),
        max_iterations=int(choice.max_iterations),
        atoms=chosen,
        whole=whole,
    )
    _check_delegation(settings, box)
    return settings


def _summed_by(
    long_range: str, solver: SolverOptions, model: NequIPLRPotential, count: int, periodic: bool
) -> str:
    """``"openmm"`` or ``"graph"``; fails where the solver cannot serve the model."""
    iterative = solver.iterative(model.config, count, periodic)
    if not has_coulomb_sum(model, periodic):
        return "graph"
    if long_range != "auto":
        return long_range
    return "graph" if iterative and periodic else "openmm"


def has_coulomb_sum(model: NequIPLRPotential, periodic: bool) -> bool:
    """Whether there is a sum to hand over: charges, and such that interact.

    Those of the published periodic code do not.
    """
    return model.config.equilibration and not (model.config.legacy_periodic and periodic)


def check_atoms(atoms: Iterable[int], count: int) -> tuple[int, ...]:
    """Indices of some of ``count`` atoms as plain numbers, in their order.

    Raises
    ------
    InputError
        If there are none, or one is no whole number, out of range or there twice.
    """
    if isinstance(atoms, str | bytes) or not isinstance(atoms, Iterable):
        raise InputError(describe("atoms", atoms, "a list of indices"))
    chosen = tuple(atoms)
    if not chosen:
        raise InputError(describe("atoms", "none", "the index of at least one atom"))
    for index in chosen:
        whole = isinstance(index, int | np.integer) and not isinstance(index, bool)
        if not whole or not 0 <= index < count:
            raise InputError(describe("atoms", index, f"indices from 0 to {count - 1}"))
    indices = tuple(int(index) for index in chosen)
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise InputError(describe("atoms", f"{twice} more than once", "each index once"))
    return indices


def topology_symbols(
    topology: app.Topology, known: Sequence[str], chosen: Sequence[int] | None = None
) -> tuple[str, ...]:
    """Element symbols of a topology's atoms.

    Parameters
    ----------
    topology : openmm.app.Topology
    known : sequence of str
        Symbols that the model knows.
    chosen : sequence of int, optional
        Indices of the atoms in question, in their order; by default all.

    Raises
    ------
    InputError
        If there are no atoms, or atoms without element.
    UnknownElementError
        If the model does not know an element.
    """
    atoms = list(topology.atoms())
    if not atoms:
        raise InputError(describe("topology", "no atoms", "at least one atom"))
    if chosen is not None:
        atoms = [atoms[index] for index in chosen]
    nameless = [a for a in atoms if a.element is None]
    if nameless:
        shown = ", ".join(f"{a.name} (index {a.index})" for a in nameless[:5])
        raise InputError(
            f"topology: expected an element for every atom, got none for {len(nameless)} of "
            f"{len(atoms)} atoms: {shown}{', …' if len(nameless) > 5 else ''}"
        )
    elements = [app.Element.getByAtomicNumber(a.element.atomic_number) for a in atoms]
    symbols = tuple(element.symbol for element in elements)  # deuterium is hydrogen
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        counts = ", ".join(
            f"{s} ({symbols.count(s)} atoms, first index {atoms[symbols.index(s)].index})"
            for s in unknown
        )
        raise UnknownElementError(
            f"topology: expected elements that the model knows ({', '.join(known)}), got {counts}"
        )
    return symbols


def as_model(model: NequIPLRPotential | str | Path) -> NequIPLRPotential:
    """A model that is not to be changed: what was given, or what its file holds."""
    if isinstance(model, NequIPLRPotential):
        return model
    if isinstance(model, str | Path):
        path = model_path(model)
        return shared_models.get(read_model_file(path), source=str(path))
    raise InputError(
        describe("model", type(model).__name__, "a NequIPLRPotential, a path or a shipped name")
    )


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise InputError(describe(argument, value, "one of " + ", ".join(map(repr, choices))))


def _check_periodic(box: ReducedBox | None, model: NequIPLRPotential) -> None:
    if box is None and model.metadata.get("periodic", "").lower() == "true":
        raise BoxError(
            "topology: expected periodic box vectors, because the model was made for periodic "
            "structures, got none; set them with topology.setPeriodicBoxVectors(), or pass an "
            "mdtraj.Trajectory with unit cells"
        )


def topology_box(topology: app.Topology) -> ReducedBox | None:
    """The box of a topology in OpenMM's form, or ``None``."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        return None
    # a Quantity of vectors, or (what a System returns) a list of Quantities
    cell = check_cell(np.array([vector.value_in_unit(unit.angstrom) for vector in vectors]))
    box = reduce_box(cell)
    if not np.allclose(box.rotation, np.eye(3), atol=1e-8):
        raise BoxError(
            f"topology: expected box vectors in OpenMM's orientation (first along x, second in the "
            f"xy plane, a right-handed set), got {cell.tolist()} Å; "
            "openmm_nequiplr.simulation.from_atoms rotates box and positions together"
        )
    return box


def _check_charge(value: Any, symbols: tuple[str, ...], model: NequIPLRPotential) -> float:
    """The total charge as a number, in e; what is doubtful about it is said."""
    if value is None:
        where = "total_charge (openmm-ml: totalCharge) is not given"
        return assume_neutral(model.metadata, where)
    value = _plain_number("total_charge", value, unit.elementary_charge)
    config = model.config
    limit = len(symbols) * max(1.0, abs(config.charge_min), abs(config.charge_max))
    if abs(value) > limit:
        raise InputError(
            describe("total_charge", value, f"at most {limit:g} e in size for {len(symbols)} atoms")
        )
    check_trained(model.metadata, float(value))
    return float(value)


def _plain_number(
    argument: str, value: Any, of: unit.Unit | None = None, kind: str = "a number"
) -> float:
    """A finite number, or a Quantity in a unit; in that unit a number."""
    number = value
    if of is not None and unit.is_quantity(value):
        try:
            number = value.value_in_unit(of)
        except (TypeError, AttributeError) as error:
            expected = f"{kind} in units of {of.get_name()}"
            raise InputError(describe(argument, value, expected)) from error
    good = isinstance(number, int | float | np.number) and not isinstance(number, bool)
    try:
        if good and math.isfinite(number):
            return float(number)
    except (OverflowError, TypeError):
        pass
    what = "" if of is None else f" in units of {of.get_name()}"
    raise InputError(describe(argument, value, f"{kind}{what}, finite"))


def _cutoff_in_angstrom(value: Any) -> float | None:
    if value is None:
        return None
    return _plain_number("nonbonded_cutoff", value, unit.nanometer, "a length") * ANGSTROM_PER_NM


def _check_delegation(settings: ComputationSettings, box: ReducedBox | None) -> None:
    """Fail now rather than at the first step."""
    if settings.long_range != "openmm":
        return
    PointChargeCoulomb(
        len(settings.symbols),
        settings.periodic,
        cutoff=settings.cutoff,
        tolerance=settings.tolerance,
        precision=settings.precision,
        platform=settings.coulomb_platform,
    )
    if box is not None:
        inner = compact_box(box.vectors)
        if settings.cutoff is not None:
            check_cutoff(settings.cutoff, inner)
        plan_pme(inner, settings.cutoff, settings.tolerance)
