"""From a topology and a model to an OpenMM System."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from ..errors import BackendError, BoxError, InputError, UnknownElementError, describe
from ..model import NequIPLRPotential, load_model
from ..model.io import serialize_model
from ..model.solving import DEFAULT_CHARGE_TOLERANCE, DEFAULT_MAX_ITERATIONS, SolverOptions
from ..units import ANGSTROM_PER_NM
from .box import ReducedBox, check_cell, compact_box, reduce_box
from .computation import (
    DTYPES,
    FORCE_NAME,
    Computation,
    ComputationSettings,
    resolve_device,
)
from .pme import DEFAULT_TOLERANCE, PointChargeCoulomb, check_cutoff, plan_pme

LONG_RANGE = ("openmm", "graph")
BACKENDS = ("auto", "python")


def create_system(
    topology: app.Topology,
    model: NequIPLRPotential | str | Path,
    *,
    total_charge: Any = 0,
    long_range: str = "openmm",
    backend: str = "auto",
    nonbonded_cutoff: Any = None,
    ewald_tolerance: float = DEFAULT_TOLERANCE,
    device: str | None = None,
    precision: str | None = None,
    remove_cm_motion: bool = True,
    coulomb_platform: str | None = None,
    solver: str = "auto",
    charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
) -> openmm.System:
    """Make a System in which a NequIP-LR model acts on all atoms of a topology.

    A topology with periodic box vectors is simulated periodically, one without is not. The System
    works with any integrator, minimiser and Monte Carlo barostat on any platform, can be
    serialised (it then contains the model), and keeps its own copy of the model.

    Parameters
    ----------
    topology : openmm.app.Topology
        Its elements choose atom types and masses; bonds are not used.
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped model.
    total_charge : float or Quantity, e
        Charge of the whole system.
    long_range : {"openmm", "graph"}
        Who sums the point-charge Coulomb energy: an OpenMM NonbondedForce (particle mesh Ewald
        when periodic), or the same sum in torch, which has no smallest box. OpenMM sums the
        reciprocal part; the pairs are summed here, once for point charges and their Gaussian
        correction.
    backend : {"auto", "python"}
        How OpenMM calls the model; ``"python"`` is a ``PythonForce``.
    nonbonded_cutoff : float (nm) or Quantity, optional
        Leaves the direct-space sum of the point charges to OpenMM as well, with this cutoff:
        slower, and the accuracy does not depend on it. An iterative solver takes no notice.
    ewald_tolerance : float
        Relative error of the Coulomb forces that the mesh aims at. Charges come from an exact
        sum, so what the mesh misses shows up as an inconsistency of energy and forces.
    device : str, optional
        torch device of the network; by default CUDA where there is one.
    precision : {"single", "double"}, optional
        Of the network and the delegated sum; by default that of the model.
    remove_cm_motion : bool
        Whether to add a CMMotionRemover.
    coulomb_platform : str, optional
        OpenMM platform of the delegated sum. By default the processor does it: platform CPU, or
        Reference for double precision.
    solver : {"auto", "dense", "iterative"}
        Of the charges. The dense solver is exact; the iterative one serves large systems: it sums
        on a mesh and starts from the step before. ``"auto"`` chooses by the number of atoms.
    charge_tolerance : float
        Residual, relative to that of uniform charges, at which the iterative solver stops.
    max_iterations : int
        Of the iterative solver; if they do not suffice, the simulation stops with an error.

    Returns
    -------
    openmm.System

    Raises
    ------
    UnknownElementError
        If the model does not know an element.
    BoxError
        If the model needs a box that the topology lacks, or the box is degenerate or too small.
    BackendError
        If backend, device or platform do not exist.
    InputError
        If another argument has a wrong value.
    """
    _check_choice("long_range", long_range, LONG_RANGE)
    _check_backend(backend)
    model = _as_model(model)
    symbols = topology_symbols(topology, model.config.type_names)
    box = _topology_box(topology, model)
    if precision is None:
        precision = next((k for k, dtype in DTYPES.items() if dtype == model.dtype), "double")
    _check_choice("precision", precision, tuple(DTYPES))
    if device is not None:
        resolve_device(device)
    settings = ComputationSettings(
        model=serialize_model(model),
        symbols=symbols,
        periodic=box is not None,
        total_charge=_check_charge(total_charge, symbols, model),
        long_range=long_range if has_coulomb_sum(model, box is not None) else "graph",
        precision=precision,
        device=device,
        cutoff=_cutoff_in_angstrom(nonbonded_cutoff),
        tolerance=ewald_tolerance,
        coulomb_platform=coulomb_platform,
        solver=solver,
        charge_tolerance=charge_tolerance,
        max_iterations=max_iterations,
    )
    choice = SolverOptions(solver, charge_tolerance, max_iterations)
    choice.iterative(model.config, len(symbols), box is not None)  # fail now
    _check_delegation(settings, box)
    return _assemble(topology, settings, box, remove_cm_motion)


def _assemble(
    topology: app.Topology,
    settings: ComputationSettings,
    box: ReducedBox | None,
    remove_cm_motion: bool,
) -> openmm.System:
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    force = openmm.PythonForce(Computation(settings))
    force.setName(FORCE_NAME)
    force.setUsesPeriodicBoundaryConditions(box is not None)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*(box.vectors / ANGSTROM_PER_NM))
    system.addForce(force)
    if remove_cm_motion:
        system.addForce(openmm.CMMotionRemover())
    return system


def topology_symbols(topology: app.Topology, known: Sequence[str]) -> tuple[str, ...]:
    """Element symbols of a topology's atoms.

    Parameters
    ----------
    topology : openmm.app.Topology
    known : sequence of str
        Symbols that the model knows.

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
    nameless = [a for a in atoms if a.element is None]
    if nameless:
        shown = ", ".join(f"{a.name} (index {a.index})" for a in nameless[:5])
        raise InputError(
            f"topology: expected an element for every atom, got none for {len(nameless)} of "
            f"{len(atoms)} atoms: {shown}{', …' if len(nameless) > 5 else ''}"
        )
    symbols = tuple(a.element.symbol for a in atoms)
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        counts = ", ".join(
            f"{s} ({symbols.count(s)} atoms, first index {symbols.index(s)})" for s in unknown
        )
        raise UnknownElementError(
            f"topology: expected elements that the model knows ({', '.join(known)}), got {counts}"
        )
    return symbols


def _as_model(model: NequIPLRPotential | str | Path) -> NequIPLRPotential:
    if isinstance(model, NequIPLRPotential):
        return model
    if isinstance(model, str | Path):
        return load_model(model)
    raise InputError(
        describe("model", type(model).__name__, "a NequIPLRPotential, a path or a shipped name")
    )


def has_coulomb_sum(model: NequIPLRPotential, periodic: bool) -> bool:
    """Whether there is a sum to hand over: charges, and such that interact.

    Those of the published periodic code do not.
    """
    return model.config.equilibration and not (model.config.legacy_periodic and periodic)


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(describe(argument, value, "one of " + ", ".join(map(repr, choices))))


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise BackendError(describe("backend", backend, " or ".join(map(repr, BACKENDS))))


def _topology_box(topology: app.Topology, model: NequIPLRPotential) -> ReducedBox | None:
    """The box of a topology in OpenMM's form, or ``None``."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        if model.metadata.get("periodic", "").lower() == "true":
            raise BoxError(
                "topology: expected periodic box vectors, because the model was made for periodic "
                "structures, got none; set them with topology.setPeriodicBoxVectors()"
            )
        return None
    cell = check_cell(np.array(vectors.value_in_unit(unit.angstrom)))
    box = reduce_box(cell)
    if not np.allclose(box.rotation, np.eye(3), atol=1e-8):
        raise BoxError(
            f"topology: expected box vectors in OpenMM's orientation (first along x, second in the "
            f"xy plane, a right-handed set), got {cell.tolist()} Å; "
            "openmm_nequiplr.simulation.from_atoms rotates box and positions together"
        )
    return box


def _check_charge(value: Any, symbols: tuple[str, ...], model: NequIPLRPotential) -> float:
    """The total charge as a number, in e."""
    if unit.is_quantity(value):
        value = value.value_in_unit(unit.elementary_charge)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(describe("total_charge", value, "a number, in elementary charges"))
    if not math.isfinite(value):
        raise InputError(describe("total_charge", value, "a finite number"))
    config = model.config
    limit = len(symbols) * max(1.0, abs(config.charge_min), abs(config.charge_max))
    if abs(value) > limit:
        raise InputError(
            describe("total_charge", value, f"at most {limit:g} e in size for {len(symbols)} atoms")
        )
    return float(value)


def _cutoff_in_angstrom(value: Any) -> float | None:
    if value is None:
        return None
    if unit.is_quantity(value):
        value = value.value_in_unit(unit.nanometer)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(describe("nonbonded_cutoff", value, "a length (a plain number is in nm)"))
    return float(value) * ANGSTROM_PER_NM


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
