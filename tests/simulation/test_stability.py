"""Simulations that become unstable are stopped, by the force itself and by the reporter."""

from __future__ import annotations

import json
import warnings

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequiplr.errors import InputError, InstabilityError
from openmm_nequiplr.model.io import deserialize_model, serialize_model
from openmm_nequiplr.simulation import create_system, from_atoms, get_computation
from openmm_nequiplr.simulation.stability import StabilityReporter, degrees_of_freedom


def simulate(atoms, model, temperature=300.0, **options):
    """A simulation of a structure, and its computation."""
    start = from_atoms(atoms)
    system = create_system(start.topology, model, **options)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 1.0, 0.0005)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    return simulation, get_computation(system)


@pytest.fixture
def narrow_model(tiny_model):
    """The tiny model, as if its training had known no charges but those around zero."""
    ranges = {"Na": [-0.01, 0.01], "Cl": [-0.01, 0.01]}
    data = serialize_model(tiny_model, {"charge_range": json.dumps(ranges)})
    return deserialize_model(data)


def state_of(simulation):
    return simulation.context.getState(positions=True, velocities=True, energy=True)


def test_a_sound_simulation_goes_on(tiny_model, tiny_salt):
    simulation, _ = simulate(tiny_salt, tiny_model)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    guard = StabilityReporter(2)
    simulation.reporters.append(guard)
    simulation.step(4)
    assert guard.sound_step == 4
    assert guard.target == pytest.approx(300.0)


def test_the_force_refuses_charges_outside_the_training(narrow_model, tiny_salt):
    simulation, computation = simulate(tiny_salt, narrow_model)
    with pytest.raises(openmm.OpenMMException, match=r"atom \d+ \((Na|Cl)\) has a charge of"):
        simulation.context.getState(energy=True)
    assert isinstance(computation.failure, InstabilityError)
    computation.on_unstable = "warn"
    with pytest.warns(RuntimeWarning, match="far outside"):
        simulation.context.getState(energy=True)
    computation.on_unstable = "ignore"
    guard = StabilityReporter(1)
    with pytest.raises(InstabilityError, match="unstable at step 0: atom .* training data"):
        guard.report(simulation, state_of(simulation))


def test_heat_names_an_atom(tiny_model, tiny_salt):
    simulation, _ = simulate(tiny_salt, tiny_model)
    velocities = np.zeros((len(tiny_salt), 3))
    velocities[3] = 60.0  # nm/ps
    simulation.context.setVelocities(velocities)
    with pytest.raises(InstabilityError, match=r"far above the target of 300 K.*hottest atom is 3"):
        StabilityReporter(1).report(simulation, state_of(simulation))
    StabilityReporter(1, temperature=1e9 * unit.kelvin).report(simulation, state_of(simulation))


def test_a_fall_of_the_energy(tiny_model, tiny_salt):
    simulation, _ = simulate(tiny_salt, tiny_model)
    guard = StabilityReporter(1)
    guard.check(simulation)
    guard._reference += 1e4
    with pytest.raises(InstabilityError, match=r"fallen by 1e\+04 eV.*largest force is .* on atom"):
        guard.report(simulation, state_of(simulation))


def test_warnings_come_once_for_each_trouble(tiny_model, tiny_salt):
    close = tiny_salt.copy()
    close.positions[1] = close.positions[0] + [0.9, 0.0, 0.0]
    simulation, _ = simulate(close, tiny_model)
    said = []
    guard = StabilityReporter(1, action="warn", say=said.append)
    for _ in range(2):
        guard.report(simulation, state_of(simulation))
    assert len(said) == 1
    assert "atoms 0" in said[0]
    assert "0.90 Å apart" in said[0]
    assert guard.sound_step == -1
    simulation.context.setPositions(from_atoms(tiny_salt).positions)
    guard._reference = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.report(simulation, state_of(simulation))
    assert guard.sound_step == 0
    assert len(said) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"reportInterval": 0},
        {"reportInterval": 1, "action": "pray"},
        {"reportInterval": 1, "temperature": -1.0},
        {"reportInterval": 1, "temperature": float("nan")},
        {"reportInterval": 1, "temperature": "hot"},
        {"reportInterval": 1, "temperature": 300.0 * unit.picosecond},
    ],
)
def test_arguments_are_checked(arguments):
    with pytest.raises(InputError):
        StabilityReporter(**arguments)


def test_only_particles_that_move_have_degrees_of_freedom():
    system = openmm.System()
    for mass in (1.0, 2.0, 0.0, 3.0):
        system.addParticle(mass)
    assert degrees_of_freedom(system) == 9
    system.addConstraint(0, 1, 0.1)
    assert degrees_of_freedom(system) == 8
    system.addForce(openmm.CMMotionRemover())
    assert degrees_of_freedom(system) == 5


def test_velocities_of_brownian_motion_are_no_temperature(tiny_model, tiny_salt):
    start = from_atoms(tiny_salt)
    system = create_system(start.topology, tiny_model, total_charge=0)
    integrator = openmm.BrownianIntegrator(300.0, 100.0, 1e-4)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    guard = StabilityReporter(1)
    simulation.reporters.append(guard)
    simulation.step(2)
    assert guard.sound_step == 2
