"""Systems travel: through XML, into other processes, and into several Contexts at once."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import openmm
import pytest

from openmm_nequiplr import create_system
from openmm_nequiplr.simulation import current_evaluation, from_atoms, get_computation

REFERENCE = openmm.Platform.getPlatform("Reference")

OTHER_PROCESS = """
import sys
import numpy as np
import openmm
from openmm_nequiplr.simulation import current_evaluation

with open(sys.argv[1]) as handle:
    system = openmm.XmlSerializer.deserialize(handle.read())
context = openmm.Context(
    system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
)
context.setPositions(np.load(sys.argv[2]))
print(repr(context.getState(energy=True).getPotentialEnergy()._value))
print(repr(float(current_evaluation(context).charges[0])))
"""


def context_of(system, positions, platform=REFERENCE):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return context


def energy_of(context):
    return context.getState(energy=True).getPotentialEnergy()._value


@pytest.fixture
def salt(ionic_model, rock_salt):
    structure = from_atoms(rock_salt)
    return create_system(structure.topology, ionic_model, total_charge=1), structure.positions


def test_through_xml(salt):
    system, positions = salt
    restored = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert energy_of(context_of(restored, positions)) == pytest.approx(
        energy_of(context_of(system, positions)), rel=1e-12
    )
    assert get_computation(restored).settings == get_computation(system).settings


@pytest.mark.parametrize("long_range", ["openmm", "graph"])
def test_into_another_process(tmp_path, ionic_model, rock_salt, long_range):
    structure = from_atoms(rock_salt)
    system = create_system(structure.topology, ionic_model, long_range=long_range)
    context = context_of(system, structure.positions)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(tmp_path / "positions.npy", structure.positions)
    result = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, "system.xml", "positions.npy"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    energy, charge = map(float, result.stdout.split())
    assert energy == pytest.approx(energy_of(context), rel=1e-9)
    assert charge == pytest.approx(current_evaluation(context).charges[0], abs=1e-9)


def _environment():
    """This process's environment, with this package found first."""
    import os
    from pathlib import Path

    import openmm_nequiplr

    root = str(Path(openmm_nequiplr.__file__).parents[1])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def test_systems_can_be_copied(salt):
    system, positions = salt
    expected = energy_of(context_of(system, positions))
    for duplicate in (copy.deepcopy(system), pickle.loads(pickle.dumps(system))):
        assert energy_of(context_of(duplicate, positions)) == pytest.approx(expected, rel=1e-12)


def test_the_copy_outlives_the_original(ionic_model, rock_salt):
    structure = from_atoms(rock_salt)
    system = create_system(structure.topology, ionic_model)
    expected = energy_of(context_of(system, structure.positions))
    xml = openmm.XmlSerializer.serialize(system)
    del system
    restored = openmm.XmlSerializer.deserialize(xml)
    context = context_of(restored, structure.positions)
    assert energy_of(context) == pytest.approx(expected, rel=1e-12)
    assert current_evaluation(context).energy * 96.48533212331002 == pytest.approx(expected)


def test_two_contexts_of_one_system(salt):
    system, positions = salt
    moved = positions + np.random.default_rng(0).normal(scale=0.002, size=positions.shape)
    expected = [energy_of(context_of(copy.deepcopy(system), p)) for p in (positions, moved)]
    first, second = context_of(system, positions), context_of(system, moved)
    second.setPeriodicBoxVectors(*(1.02 * np.array(_box(second))))
    assert energy_of(first) == pytest.approx(expected[0], rel=1e-12)
    larger = energy_of(second)
    assert larger != pytest.approx(expected[1], rel=1e-9)
    second.setPeriodicBoxVectors(*_box(first))
    assert energy_of(second) == pytest.approx(expected[1], rel=1e-12)
    assert energy_of(first) == pytest.approx(expected[0], rel=1e-12)


def _box(context):
    vectors = context.getState(positions=True).getPeriodicBoxVectors(asNumpy=True)
    return np.array(vectors._value)


def test_two_systems_of_one_model(ionic_model, rock_salt, cluster):
    contexts, expected = [], []
    for atoms in (rock_salt, cluster):
        structure = from_atoms(atoms)
        system = create_system(structure.topology, ionic_model)
        expected.append(energy_of(context_of(system, structure.positions)))
        contexts.append(context_of(system, structure.positions))
    for _ in range(2):
        for context, energy in zip(contexts, expected, strict=True):
            assert energy_of(context) == pytest.approx(energy, rel=1e-12)


def test_contexts_in_threads_run_as_they_do_alone(salt):
    system, positions = salt
    shifts = [0.0, 0.003, -0.002]

    def trajectory(shift):
        context = context_of(system, positions * (1.0 + shift))
        context.getIntegrator().step(3)
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    alone = [trajectory(shift) for shift in shifts]
    together: list = [None] * len(shifts)

    def work(index):
        together[index] = trajectory(shifts[index])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(shifts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
