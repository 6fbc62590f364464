"""Systems travel: through XML, into other processes, and into several Contexts at once."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading

import numpy as np
import openmm
import pytest

from openmm_nequiplr import create_system, save_model
from openmm_nequiplr.errors import InputError, ModelFileError, NequIPLRError
from openmm_nequiplr.pickling import Unavailable
from openmm_nequiplr.simulation import (
    Computation,
    computation,
    current_evaluation,
    from_atoms,
    get_computation,
)
from openmm_nequiplr.simulation.serialization import ModelFile, pack

from .twins import context_of, copy_of

REFERENCE = openmm.Platform.getPlatform("Reference")

# Blocks packages by name, then loads a System, serialises it once more, and evaluates it.
OTHER_PROCESS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[3:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import openmm

with open(sys.argv[1]) as handle:
    system = openmm.XmlSerializer.deserialize(handle.read())
system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
context = openmm.Context(
    system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
)
context.setPositions(np.load(sys.argv[2]))
try:
    print(repr(context.getState(energy=True).getPotentialEnergy()._value))
except openmm.OpenMMException as error:
    print(error)
if not sys.argv[3:]:
    from openmm_nequiplr.simulation import current_evaluation

    print(repr(float(current_evaluation(context).charges[0])))
"""


def in_another_process(folder, system, positions, *absent):
    """What evaluating a System in a process without some packages prints."""
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(folder / "positions.npy", positions)
    result = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, "system.xml", "positions.npy", *absent],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def energy_of(context):
    return context.getState(energy=True).getPotentialEnergy()._value


@pytest.fixture
def salt(ionic_model, rock_salt):
    structure = from_atoms(rock_salt)
    return create_system(structure.topology, ionic_model, total_charge=1), structure.positions


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
    for duplicate in (copy_of(system), copy.deepcopy(system), pickle.loads(pickle.dumps(system))):
        assert get_computation(duplicate).settings == get_computation(system).settings
        assert energy_of(context_of(duplicate, positions)) == pytest.approx(expected, rel=1e-12)


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


# ---------------------------------------------------------------------- a model beside the System


@pytest.fixture
def model_file(tmp_path, ionic_model):
    path = tmp_path / "models" / "salt.safetensors"
    save_model(ionic_model, path)
    return path


@pytest.fixture
def reload(cluster):
    """A System that refers to its model, as another process would read it; and its positions."""

    def make(model):
        structure = from_atoms(cluster)
        system = create_system(structure.topology, model, embed_model=False)
        xml = openmm.XmlSerializer.serialize(system)
        del system
        gc.collect()  # the computation must not be at hand any more
        return openmm.XmlSerializer.deserialize(xml), structure.positions

    return make


def test_into_another_process(tmp_path, model_file, cluster):
    structure = from_atoms(cluster)
    system = create_system(structure.topology, model_file, embed_model=False)
    context = context_of(system, structure.positions)
    found = in_another_process(tmp_path, system, structure.positions)
    energy, charge = map(float, found.split())
    assert energy == pytest.approx(energy_of(context), rel=1e-12)
    assert charge == pytest.approx(current_evaluation(context).charges[0], abs=1e-12)


def test_the_file_is_all_that_is_left_out(reload, model_file, cluster):
    system, positions = reload(model_file)
    settings = get_computation(system).settings
    assert settings.model == ModelFile.of(model_file)
    assert settings.model.source == str(model_file)
    assert len(openmm.XmlSerializer.serialize(system)) < 10_000
    embedded = create_system(from_atoms(cluster).topology, model_file)
    expected = energy_of(context_of(embedded, positions))
    assert energy_of(context_of(system, positions)) == expected


def test_a_missing_model_file(reload, model_file, monkeypatch):
    system, positions = reload(model_file)
    elsewhere = model_file.rename(model_file.parents[1] / model_file.name)
    context = context_of(system, positions)
    message = f"model: expected the file {model_file},.* put that file back.*embed_model=True"
    with pytest.raises(openmm.OpenMMException, match=message):
        energy_of(context)
    monkeypatch.chdir(elsewhere.parent)  # put back beside the run
    assert np.isfinite(energy_of(context))


def test_a_model_file_that_has_changed(reload, model_file, ionic_model):
    system, positions = reload(model_file)
    save_model(ionic_model, model_file, {"title": "another"})
    message = rf"SHA-256.*got '{model_file} with other contents.*embed_model=True"
    with pytest.raises(openmm.OpenMMException, match=message):
        energy_of(context_of(system, positions))


def test_a_shipped_model_is_referred_to_by_name(cluster):
    assert ModelFile.of("au2-mgo").source == "au2-mgo"
    assert ModelFile.of("au2-mgo").load().config.type_names
    topology = from_atoms(cluster).topology
    with pytest.raises(ModelFileError, match="model: expected a model file or a shipped"):
        create_system(topology, "absent", embed_model=False)


def test_only_files_can_be_referred_to(ionic_model, cluster):
    topology = from_atoms(cluster).topology
    with pytest.raises(InputError, match="model: expected a path.*embed_model=False"):
        create_system(topology, ionic_model, embed_model=False)


# ------------------------------------------------------------ processes that are not like this one


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("openmm_nequiplr", "the package openmm-nequiplr is not installed here; install it"),
        ("torch", "No module named 'torch'); repair the installation of openmm-nequiplr"),
    ],
)
def test_a_process_that_lacks_a_package_says_so(tmp_path, ionic_model, cluster, absent, message):
    """OpenMM 8.6 would end it without a word."""
    structure = from_atoms(cluster)
    system = create_system(structure.topology, ionic_model)
    assert message in in_another_process(tmp_path, system, structure.positions, absent)


@pytest.mark.parametrize("change", ["format", "setting"])
def test_a_system_of_a_newer_version(ionic_model, cluster, change):
    structure = from_atoms(cluster)
    payload = pack("token of no computation", settings_of(structure, ionic_model))
    payload["version"] = "9.9"
    if change == "format":
        payload["format"] += 1
    else:
        payload["settings"]["polarisability"] = 1.0
    system = openmm.System()
    for _ in cluster:
        system.addParticle(1.0)
    force = openmm.PythonForce(Unavailable(payload, "as another process holds it"))
    force.setName("NequIPLR")
    system.addForce(force)
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    message = r"system: expected format 1 or older.*openmm-nequiplr 9\.9.*; upgrade"
    with pytest.raises(openmm.OpenMMException, match=message):
        energy_of(context_of(system, structure.positions))
    with pytest.raises(NequIPLRError, match=message):
        get_computation(system)


def settings_of(structure, model):
    return get_computation(create_system(structure.topology, model)).settings


def test_a_system_of_version_0_1_0(ionic_model, cluster):
    """Its pickles name a function and hold the settings as an object."""
    structure = from_atoms(cluster)
    settings = settings_of(structure, ionic_model)
    old = _Pickled(computation._restore, "token of no computation", settings)
    restored = pickle.loads(pickle.dumps(old))
    assert restored.settings == settings
    positions = 10.0 * structure.positions
    assert restored.evaluate(positions).energy == Computation(settings).evaluate(positions).energy


class _Pickled:
    """Pickles as a call of a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]
