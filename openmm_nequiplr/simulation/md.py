"""Driver of molecular dynamics: from model and structure to trajectory, log, charges and plot."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import app, unit

from ..costs import default_device
from ..describe import describe_atoms, describe_charges, describe_conditions, describe_threads
from ..errors import InputError, Interrupted, describe
from ..locking import directory_lock
from ..model import NequIPLRPotential, load_model
from ..model.committee import check_alike
from ..pretrained import shipped_models, shipped_structure
from ..threads import SMALL
from ..total_charge import assume_neutral
from ..units import ANGSTROM_PER_NM
from .charge_groups import structure_groups, topology_electrodes
from .checkpoint import Checkpoint
from .committee import load_others
from .lookup import get_computation
from .multistep import GROUPS
from .options import DEFAULT_INNER_STEPS, DEFAULT_REPORT_INTERVAL, MDOptions
from .platforms import busy_cores, choose_platform, limited_platform
from .restart import OF_ONE_CALL, compare_settings, find_checkpoint
from .run import Run
from .runfiles import MDResult, RunFiles, read_settings
from .settings import ForceOptions
from .signals import stop_signals
from .structure_files import read_structure
from .summary import rarest_element
from .system import create_system, heavier_structure
from .topology import SimulationStructure, element_symbols, say_far

__all__ = ["MDOptions", "MDResult", "continued_options", "run_md"]


def run_md(options: MDOptions) -> MDResult:
    """Run molecular dynamics and write trajectory, log, charges, checkpoint and a summary plot.

    An interrupted run (Ctrl-C, SIGTERM) writes a checkpoint and the plot before it ends. A killed
    run loses nothing before the last checkpoint; a restart truncates the files to it.

    Raises
    ------
    InputError
        If options, model and structure are inconsistent, or the output directory contains results.
        On a restart also if files are missing or do not belong to the checkpoint.
    DirectoryInUseError
        If another process uses the output directory.
    InstabilityError
        If the simulation became unstable; the last stable checkpoint is kept.
    UncertaintyError
        If the committee spread ended the run, after all files were written.
    Interrupted
        If a signal ended the run, after all files were written; a subclass of KeyboardInterrupt.
    """
    files = RunFiles(Path(options.output))
    with stop_signals() as stop, ExitStack() as stack:
        earlier: dict[str, Any] = {}
        if options.restart:
            files.require()
            stack.enter_context(directory_lock(files.directory))
            earlier = read_settings(files.settings)
        model = load_model(options.model)
        structure = _load_structure(options, files)
        _check_held(options, structure)
        say_far(structure)
        if options.hydrogen_mass is not None and not options.restart:  # a restart reads the masses
            structure = heavier_structure(structure, options.hydrogen_mass)
        options, assumed = _settle_charge(options, model, structure, earlier)
        options = _settle(_settle_groups(options, structure), structure, earlier)
        options.say_idle()
        checkpoint, notes = None, []
        if options.restart:
            notes = compare_settings(options, earlier)
            periodic = structure.box is not None
            checkpoint = find_checkpoint(files, structure.num_atoms, periodic)
            if options.seed != earlier.get("seed", options.seed):
                checkpoint = dataclasses.replace(checkpoint, random=None)
        threads = options.threads or (1 if structure.num_atoms < SMALL else None)
        stack.enter_context(limited_platform(threads))
        simulation = _make_simulation(options, model, structure, checkpoint)
        others = load_others(options.committee, options.model) if options.committee else []
        check_alike([model, *others])
        if not options.restart:
            files.refuse_results()
            stack.enter_context(directory_lock(files.directory))
            files.refuse_results()
        run = Run(options, files, simulation, stop, others)
        run.say(_headline(model, structure, options, simulation, assumed))
        for note in [*notes, *busy_cores(threads)]:
            run.say(note)
        if stop:
            raise Interrupted(f"{stop.name} before the first step", stop.number)
        run.begin(structure, checkpoint)
        return run.go()


def continued_options(**given: Any) -> MDOptions:
    """Options of a run; a restart inherits those of the earlier run.

    Parameters
    ----------
    **given
        Fields of :class:`MDOptions`. With ``restart=True`` they override the options of the earlier
        run in ``output``; otherwise only these options are used.
    """
    kept: dict[str, Any] = {}
    if given.get("restart"):
        known = {field.name for field in dataclasses.fields(MDOptions)} - OF_ONE_CALL
        files = RunFiles(Path(given.get("output", MDOptions.output)))
        files.require()
        earlier = read_settings(files.settings)
        kept = {name: value for name, value in earlier.items() if name in known}
        if given.get("inner", kept.get("inner")) is None:
            kept.pop("inner_steps", None)
    return MDOptions(**{**kept, **given})


def _load_structure(options: MDOptions, files: RunFiles) -> SimulationStructure:
    if options.restart:
        structure = read_structure(files.topology)
        masses = read_settings(files.settings).get("masses")
        if masses is not None:
            structure = dataclasses.replace(structure, masses=np.array(masses))
        if options.structure is None:
            return structure
        given = read_structure(options.structure, options.frame)
        if element_symbols(given.topology) != element_symbols(structure.topology):
            raise InputError(
                f"structure: expected the atoms of the run in {files.directory}, got others in "
                f"{options.structure}; leave the structure out of a restart"
            )
        return structure
    if options.structure is not None:
        return read_structure(options.structure, options.frame)
    if str(options.model) in shipped_models():
        return read_structure(shipped_structure(str(options.model)))
    raise InputError(
        describe("structure", None, "a structure file (only shipped models come with one)")
    )


def _settle_charge(
    options: MDOptions,
    model: NequIPLRPotential,
    structure: SimulationStructure,
    earlier: dict[str, Any],
) -> tuple[MDOptions, bool]:
    """Fill in the total charge; returns whether it is an assumption."""
    if options.total_charge is not None:
        return options, False
    assumed = "total_charge" not in earlier and not structure.charge_given
    charge = earlier.get("total_charge", structure.total_charge)
    if assumed:
        where = f"{options.structure} does not tell (--total-charge does)"
        charge = assume_neutral(model.metadata, where)
    return dataclasses.replace(options, total_charge=charge), assumed


def _settle_groups(options: MDOptions, structure: SimulationStructure) -> MDOptions:
    """Convert electrodes to indices and charge groups to labels of atoms, to store in settings."""
    electrodes = topology_electrodes(structure.topology, None, options.electrodes)
    options = dataclasses.replace(options, electrodes=electrodes)
    given = options.charge_groups, options.group_charges, options.total_charge
    held = structure_groups(structure, *given, electrodes)
    if held is None:
        return options
    groups, charges = (tuple(each.tolist()) for each in held)
    return dataclasses.replace(options, charge_groups=groups, group_charges=charges)


def _check_held(options: MDOptions, structure: SimulationStructure) -> None:
    """Check that the run can keep the constraints of the structure."""
    if structure.constraints:
        got = f"{', '.join(structure.constraints)} in {options.structure}"
        expected = "no constraints but atoms that are fixed in all three directions"
        raise InputError(describe("structure", got, expected))
    if options.ensemble == "npt" and structure.frozen.any():
        got = f"npt with {int(structure.frozen.sum())} atoms that are held fixed"
        expected = "nve or nvt, because a barostat moves all atoms with the box"
        raise InputError(describe("ensemble", got, expected))


def _headline(
    model: NequIPLRPotential,
    structure: SimulationStructure,
    options: MDOptions,
    simulation: app.Simulation,
    assumed: bool,
) -> str:
    """One line that describes the run."""
    settings = get_computation(simulation.system).settings
    atoms = describe_atoms(
        settings.symbols,
        settings.total_charge,
        None if structure.box is None else structure.box * ANGSTROM_PER_NM,
        assumed,
        int(structure.frozen.sum()),
        settings.slab,
    )
    charges = describe_charges(
        model.config,
        len(settings.symbols),
        settings.periodic,
        settings.solver_options,
        settings.long_range,
        default_device(len(settings.symbols), settings.device),
    )
    platform = simulation.context.getPlatform().getName()
    atoms += describe_conditions(settings.charge_conditions)
    if options.hydrogen_mass is not None:
        atoms += f", hydrogen of {options.hydrogen_mass:g} Da"
    return f"{atoms}, {platform}, {describe_threads(torch.get_num_threads())}, {charges}"


def _settle(
    options: MDOptions, structure: SimulationStructure, earlier: dict[str, Any]
) -> MDOptions:
    """Fill in missing options, and compare them with those of the continued run."""
    changes: dict[str, Any] = {}
    interval = earlier.get("report_interval", options.report_interval or DEFAULT_REPORT_INTERVAL)
    if options.report_interval not in (None, interval):
        expected = f"{interval}, as in the run that is continued"
        raise InputError(describe("report_interval", options.report_interval, expected))
    changes["report_interval"] = interval
    changes["slab"] = options.slab or earlier.get("slab", structure.slab)
    if options.checkpoint_interval is None:
        changes["checkpoint_interval"] = 10 * interval
    if options.inner is not None and options.inner_steps is None:
        changes["inner_steps"] = DEFAULT_INNER_STEPS
    if options.seed is None:
        drawn = int(np.random.default_rng().integers(1, 2**31 - 1))
        changes["seed"] = earlier.get("seed", drawn)
    element = options.charge_of
    if element is None:
        changes["charge_of"] = rarest_element(element_symbols(structure.topology))
    elif element not in element_symbols(structure.topology):
        raise InputError(describe("charge_of", element, "an element of the structure"))
    return dataclasses.replace(options, **changes)


def _make_simulation(
    options: MDOptions,
    model: NequIPLRPotential,
    structure: SimulationStructure,
    checkpoint: Checkpoint | None,
) -> app.Simulation:
    system = create_system(
        structure.topology,
        model,
        total_charge=options.total_charge,
        masses=structure.masses,
        inner=options.inner,
        **{each.name: getattr(options, each.name) for each in dataclasses.fields(ForceOptions)},
    )
    if options.ensemble == "npt":
        system.addForce(_make_barostat(options, structure))
    integrator = _make_integrator(options)
    state = None if checkpoint is None else checkpoint.state
    _seed(system, integrator, options, state)
    platform, properties = choose_platform(options.platform, options.device, options.precision)
    return app.Simulation(structure.topology, system, integrator, platform, properties)


def _make_integrator(options: MDOptions) -> openmm.Integrator:
    timestep = options.timestep * unit.femtosecond
    bath = (options.temperature, options.friction / unit.picosecond)
    if options.inner is not None:
        slow, fast = GROUPS
        steps = [(slow, 1), (fast, options.inner_steps)]
        if options.ensemble == "nve":
            return openmm.MTSIntegrator(timestep, steps)
        return openmm.MTSLangevinIntegrator(*bath, timestep, steps)
    if options.ensemble == "nve":
        return openmm.VerletIntegrator(timestep)
    return openmm.LangevinMiddleIntegrator(*bath, timestep)


def _seed(
    system: openmm.System,
    integrator: openmm.Integrator,
    options: MDOptions,
    state: openmm.State | None,
) -> None:
    """Seed thermostat and barostat; a restart uses another seed, so that noise does not repeat."""
    step = 0 if state is None else state.getStepCount()
    seed = (int(options.seed or 0) + 7919 * step) % (2**31 - 2) + 1
    for mover in (*system.getForces(), integrator):
        if hasattr(mover, "setRandomNumberSeed"):
            mover.setRandomNumberSeed(seed)


def _make_barostat(options: MDOptions, structure: SimulationStructure) -> openmm.Force:
    if structure.box is None:
        raise InputError(describe("ensemble", "npt", "nve or nvt for a structure without box"))
    pressure, kelvin = options.pressure * unit.bar, options.temperature * unit.kelvin
    interval = options.barostat_interval
    if options.slab and (options.barostat != "anisotropic" or "z" in options.barostat_axes):
        got = f"{options.barostat!r} along {options.barostat_axes}"
        expected = (
            "'anisotropic' with axes x, y or xy for a slab, as its vacuum has no pressure along z"
        )
        raise InputError(describe("barostat", got, expected))
    if options.barostat == "isotropic":
        return openmm.MonteCarloBarostat(pressure, kelvin, interval)
    if options.barostat == "flexible":
        return openmm.MonteCarloFlexibleBarostat(pressure, kelvin, interval)
    scaled = [axis in options.barostat_axes for axis in "xyz"]
    same = openmm.Vec3(1, 1, 1) * options.pressure * unit.bar
    return openmm.MonteCarloAnisotropicBarostat(same, kelvin, *scaled, interval)
