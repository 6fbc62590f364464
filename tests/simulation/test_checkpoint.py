"""Checkpoints: random numbers go on, two generations are kept, and nothing is executed."""

from __future__ import annotations

import re

import numpy as np
import openmm
import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation.checkpoint import (
    Checkpoint,
    RandomState,
    load_checkpoint,
)
from openmm_nequiplr.simulation.marks import FileMark
from openmm_nequiplr.writing import replace_file

COUNT = 8


def make_context(seed=5, platform="Reference", threads="1", count=COUNT):
    """Particles that a thermostat kicks, in a box."""
    system = openmm.System()
    for _ in range(count):
        system.addParticle(20.0)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform(platform)
    properties = {"Threads": threads} if platform.getName() == "CPU" else {}
    context = openmm.Context(system, integrator, platform, properties)
    context.setPositions(np.arange(3.0 * count).reshape(-1, 3))
    context.setVelocitiesToTemperature(300, 1)
    return context


def checkpoint_of(context):
    state = context.getState(positions=True, velocities=True)
    return Checkpoint(state, {"log.csv": FileMark(12, 345)}, RandomState.of(context))


def positions_after(context, steps):
    context.getIntegrator().step(steps)
    return context.getState(positions=True).getPositions(asNumpy=True)._value


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_random_numbers_continue(platform, tmp_path):
    context = make_context(platform=platform)
    positions_after(context, 7)
    path = tmp_path / "checkpoint.xml"
    replace_file(path, checkpoint_of(context).dumps())
    expected = positions_after(context, 20)
    found = load_checkpoint(path, COUNT, True)
    assert found.marks == {"log.csv": FileMark(12, 345)}
    again = make_context(seed=6, platform=platform)
    again.setState(found.state)
    assert found.random.restore(again, found.state) is None
    assert again.getStepCount() == 7
    np.testing.assert_array_equal(positions_after(again, 20), expected)


def test_pressure_and_bath_are_those_of_the_new_run():
    """OpenMM's checkpoints hold the parameters of a barostat and the bath of MTSLangevin."""

    def made(pressure, kelvin):
        system = openmm.System()
        system.addParticle(20.0)
        system.addForce(openmm.MonteCarloBarostat(pressure, kelvin))
        springs = openmm.HarmonicBondForce()
        springs.setUsesPeriodicBoundaryConditions(True)  # or there is no pressure
        system.addForce(springs)
        integrator = openmm.MTSLangevinIntegrator(kelvin, 1.0, 0.002, [(0, 1), (1, 2)])
        context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
        context.setPositions(np.zeros((1, 3)))
        return context

    context, again = made(1.0, 300.0), made(50.0, 600.0)
    state = context.getState(positions=True, velocities=True)
    again.setState(state)
    assert RandomState.of(context).restore(again, state) is None
    assert dict(again.getParameters()) == {"MonteCarloPressure": 50, "MonteCarloTemperature": 600}
    kt = [each.getIntegrator().getGlobalVariableByName("kT") for each in (context, again)]
    assert kt[1] == pytest.approx(2 * kt[0])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"platform": "CPU"}, "platform Reference.*, this is .*platform CPU"),
        ({"count": COUNT + 1}, "of 8 particles, this is .* of 9 particles"),
    ],
)
def test_random_numbers_of_elsewhere_begin_anew(other, reason):
    found = checkpoint_of(make_context())
    context = make_context(**other)
    state = context.getState(positions=True, velocities=True)
    answer = found.random.restore(context, state)
    assert re.search(reason, answer)
    after = context.getState(positions=True, velocities=True)
    np.testing.assert_array_equal(
        after.getPositions(asNumpy=True), state.getPositions(asNumpy=True)
    )


def test_random_numbers_of_another_state_are_not_taken():
    context = make_context()
    found = checkpoint_of(context)
    positions_after(context, 3)
    state = context.getState(positions=True, velocities=True)
    assert found.random.restore(context, state) == "they belong to another state"
    assert context.getStepCount() == 3


class Poison:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __call__(self, state):
        return 0.0, np.zeros((COUNT, 3))

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_is_executed(tmp_path):
    trace = tmp_path / "executed"
    system = openmm.System()
    for _ in range(COUNT):
        system.addParticle(1.0)
    system.addForce(openmm.PythonForce(Poison(trace)))
    xml = openmm.XmlSerializer.serialize(system)
    state = checkpoint_of(make_context()).dumps()
    disguises = [
        xml,
        state.splitlines()[0] + "\n" + xml.split("\n", 1)[1],
        xml.replace("<System ", '<State x="1" ').replace("</System>", "</State>"),
        state.replace('type="State"', 'type="System"') + xml,
        f"<!-- <State> -->\n{xml}",
        xml + state,
    ]
    path = tmp_path / "checkpoint.xml"
    for content in disguises:
        path.write_text(content)
        with pytest.raises(InputError, match="checkpoint: expected an OpenMM State"):
            load_checkpoint(path, COUNT, True)
    assert not trace.exists()


def test_damage_is_found(tmp_path, rng):
    path = tmp_path / "checkpoint.xml"
    content = checkpoint_of(make_context()).dumps().encode()
    for _ in range(60):
        changed = bytearray(content)
        changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(InputError, match="checkpoint: expected"):
            load_checkpoint(path, COUNT, True)
    for length in rng.integers(0, len(content) - 1, 20):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="checkpoint: expected"):
            load_checkpoint(path, COUNT, True)


def test_states_of_something_else(tmp_path):
    path = tmp_path / "checkpoint.xml"
    context = make_context()
    path.write_text(checkpoint_of(context).dumps())
    with pytest.raises(InputError, match="expected a state of 9 atoms, got '8 atoms'"):
        load_checkpoint(path, COUNT + 1, True)
    context.setPositions(np.full((COUNT, 3), np.nan))
    path.write_text(checkpoint_of(context).dumps())
    with pytest.raises(InputError, match="checkpoint: expected"):
        load_checkpoint(path, COUNT, True)
    path.write_bytes(b" " * (1 << 25))
    with pytest.raises(InputError, match="expected at most .* bytes for 8 atoms"):
        load_checkpoint(path, COUNT, True)
