"""openmm-ml: entry points, arguments, and the same Systems as ``create_system`` makes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

pytest.importorskip("openmmml", reason="openmm-ml is not installed")
from openmmml import MLPotential
from openmmml.mlpotential import MLPotentialImpl

import openmm_nequiplr
from openmm_nequiplr import create_system, save_model, shipped_models, shipped_structure
from openmm_nequiplr.errors import (
    InputError,
    ModelFileError,
)
from openmm_nequiplr.openmm_ml import NequIPLRPotentialImplFactory
from openmm_nequiplr.simulation import (
    create_force,
    from_atoms,
    get_computation,
    read_structure,
)
from openmm_nequiplr.simulation.mlpotential import FORCE_OPTIONS, force_options

from .twins import context_of, energy_and_forces

GROUP = "openmmml.potentials"
REFERENCE = openmm.Platform.getPlatform("Reference")
EXPECTED_NAMES = {"nequiplr", *(f"nequiplr-{name}" for name in shipped_models())}


@pytest.fixture(autouse=True)
def _registered():
    """Also where the package runs without being installed."""
    for name in EXPECTED_NAMES:
        MLPotential.registerImplFactory(name, NequIPLRPotentialImplFactory())


@pytest.fixture
def model_file(tmp_path, make_model):
    path = tmp_path / "model.safetensors"
    save_model(make_model(), path)
    return path


def settings_of(system):
    """What defines the computation, less the bytes of the model."""
    return dataclasses.replace(get_computation(system).settings, model=b"")


# ---------------------------------------------------------------------------------- entry points


def test_entry_points_are_declared():
    """One for the potential and one for each shipped model."""
    declaration = Path(openmm_nequiplr.__file__).parents[1] / "pyproject.toml"
    if not declaration.exists():
        pytest.skip("no source tree around the package")
    text = declaration.read_text(encoding="utf-8")
    section = text.split(f'[project.entry-points."{GROUP}"]\n', 1)[1].split("\n\n")[0]
    declared = dict(re.findall(r'^([\w-]+) = "(.*)"$', section, re.MULTILINE))
    assert set(declared) == EXPECTED_NAMES
    for value in declared.values():
        found = importlib.metadata.EntryPoint("name", value, GROUP).load()
        assert found is NequIPLRPotentialImplFactory


def test_entry_points_are_installed():
    try:
        installed = importlib.metadata.distribution("openmm-nequiplr").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    found = {point.name: point.load() for point in installed if point.group == GROUP}
    assert found == dict.fromkeys(EXPECTED_NAMES, NequIPLRPotentialImplFactory)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()


def test_openmm_ml_pays_nothing_for_what_it_does_not_use():
    code = "import sys, openmmml, openmm_nequiplr.openmm_ml; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_the_package_works_without_openmm_ml():
    code = (
        "import sys; sys.modules['openmmml'] = None\n"
        "import openmm_nequiplr.openmm_ml\n"
        "from openmm_nequiplr import create_system; print(create_system.__name__)"
    )
    assert run(code) == "create_system"


def test_importing_ours_first_is_the_same():
    code = (
        "import openmm_nequiplr.simulation.mlpotential as ours, openmmml\n"
        "print(ours.NequIPLRPotentialImpl('nequiplr', 'carbon-chain').getMLLongRange())"
    )
    assert run(code) == "True"


# ----------------------------------------------------------------------------------- createSystem


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models(name):
    start = read_structure(shipped_structure(name))
    expected = create_system(start.topology, name, total_charge=start.total_charge)
    energy, forces = energy_and_forces(context_of(expected, start.positions))
    for potential in (MLPotential("nequiplr", modelPath=name), MLPotential(f"nequiplr-{name}")):
        system = potential.createSystem(start.topology, totalCharge=start.total_charge)
        assert settings_of(system) == settings_of(expected)
        found = energy_and_forces(context_of(system, start.positions))
        assert found[0] == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(found[1], forces, atol=1e-3 * np.abs(forces).max())


def test_what_the_system_consists_of(model_file, rock_salt):
    topology = from_atoms(rock_salt).topology
    potential = MLPotential("nequiplr", modelPath=str(model_file))
    assert isinstance(potential._impl, MLPotentialImpl)
    system = potential.createSystem(topology)
    expected = create_system(topology, model_file)
    assert [type(force).__name__ for force in system.getForces()] == [
        "PythonForce",
        "CMMotionRemover",
    ]
    for index in range(system.getNumParticles()):
        assert system.getParticleMass(index) == expected.getParticleMass(index)
    assert system.getDefaultPeriodicBoxVectors() == expected.getDefaultPeriodicBoxVectors()
    assert potential.createSystem(topology, removeCMMotion=False).getNumForces() == 1


def test_options_are_passed_on(make_model, rock_salt):
    topology = from_atoms(rock_salt).topology
    options = {
        "long_range": "graph",
        "backend": "python",
        "ewald_tolerance": 1e-6,
        "precision": "single",
        "coulomb_platform": "Reference",
        "solver": "dense",
        "charge_tolerance": 1e-7,
        "max_iterations": 77,
    }
    assert {*options, "device"} <= set(FORCE_OPTIONS)
    potential = MLPotential("nequiplr", modelPath=make_model())
    system = potential.createSystem(topology, charge=2, device=torch.device("cpu"), **options)
    expected = create_system(topology, make_model(), total_charge=2, device="cpu", **options)
    assert settings_of(system) == settings_of(expected)


def test_every_option_of_the_force_is_known():
    options = {name: f"some {name}" for name in FORCE_OPTIONS}
    assert force_options(options) == options


def test_the_charge_has_several_names():
    for name in ("totalCharge", "charge", "total_charge"):
        assert force_options({name: 1}) == {"total_charge": 1}
    with pytest.raises(InputError, match="'totalCharge and charge'"):
        force_options({"charge": 1, "totalCharge": 1})


def test_some_atoms_in_a_group(make_model, molecule):
    structure = from_atoms(molecule)
    system = openmm.System()
    for _ in range(7):
        system.addParticle(1.0)
    impl = MLPotential("nequiplr", modelPath=make_model())._impl
    impl.addForces(structure.topology, system, (5, 2, 3), 4)
    force = system.getForce(0)
    assert force.getForceGroup() == 4
    assert tuple(force.getParticles()) == (5, 2, 3)
    alone = openmm.System()
    for _ in range(7):
        alone.addParticle(1.0)
    alone.addForce(create_force(structure.topology, make_model(), atoms=[5, 2, 3]))
    expected = energy_and_forces(context_of(alone, structure.positions))
    found = energy_and_forces(context_of(system, structure.positions))
    assert found[0] == pytest.approx(expected[0])
    np.testing.assert_allclose(found[1], expected[1])


def test_whether_images_are_the_models(make_model):
    for legacy in (False, True):
        model = make_model(legacy_periodic=legacy)
        assert MLPotential("nequiplr", modelPath=model)._impl.getMLLongRange() is not legacy


# --------------------------------------------------------------------------------------- errors


def test_wrong_models(tmp_path):
    names = ", ".join(map(repr, shipped_models()))
    with pytest.raises(ModelFileError, match=rf"shipped model \[{names}\]"):
        MLPotential("nequiplr", modelPath=tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="modelPath: expected a model file or a shipped model"):
        MLPotential("nequiplr")
    with pytest.raises(InputError, match="modelPath: expected nothing"):
        MLPotential("nequiplr-au2-mgo", modelPath="carbon-chain")
    with pytest.raises(InputError, match="modelPath and nothing else, got.*lengthScale"):
        MLPotential("nequiplr", modelPath="carbon-chain", lengthScale=0.1)
    with pytest.raises(InputError, match="model: expected a NequIPLRPotential"):
        MLPotential("nequiplr", modelPath=3)
