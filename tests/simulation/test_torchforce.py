"""Systems whose model is a TorchScript graph, against the PythonForce and the evaluator."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

import openmm_nequiplr
from openmm_nequiplr import ChargeReporter, create_system, export_torch_force
from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import (
    current_evaluation,
    describe_backend,
    deserialize_system,
    from_atoms,
    get_computation,
    load_charges,
)
from openmm_nequiplr.simulation.torchforce import load_openmmtorch

try:
    openmmtorch = load_openmmtorch()
except BackendError as error:
    pytest.skip(str(error), allow_module_level=True)

REFERENCE = openmm.Platform.getPlatform("Reference")
ROOT = Path(openmm_nequiplr.__file__).parents[1]


def context_of(system, positions, platform=REFERENCE, properties=None):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, properties or {})
    context.setPositions(positions)
    return context


def energy_and_forces(context):
    """In kJ/mol and kJ/mol/nm."""
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def relative(found, expected):
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def scale_of(context):
    return 96.485 * sum(abs(part) for part in current_evaluation(context).parts.values())


def compare(found, expected, energy=1e-6, forces=1e-5):
    """Two contexts at the same geometry."""
    for one, other in [(energy_and_forces(found), energy_and_forces(expected))]:
        assert abs(one[0] - other[0]) < energy * scale_of(expected)
        assert relative(one[1], other[1]) < forces


@pytest.mark.parametrize("long_range", ["openmm", "graph"])
@pytest.mark.parametrize("name", ["rock_salt", "skewed_salt", "cluster"])
def test_against_the_python_force(request, ionic_model, name, long_range):
    structure = from_atoms(request.getfixturevalue(name))
    options = {"total_charge": 1, "long_range": long_range}
    contexts = [
        context_of(
            create_system(structure.topology, ionic_model, backend=backend, **options),
            structure.positions,
        )
        for backend in ("torch", "python")
    ]
    compare(*contexts)
    # the third evaluation of a graph is the first that torch has optimised
    rng = np.random.default_rng(1)
    for _ in range(3):
        moved = structure.positions + 0.003 * rng.normal(size=structure.positions.shape)
        for context in contexts:
            context.setPositions(moved)
        compare(*contexts)


@pytest.mark.parametrize("name", ["Reference", "CPU"])
def test_single_precision(ionic_model, rock_salt, name):
    """On the platforms that openmm-torch 1.5 goes with: with OpenCL it misses a symbol."""
    chosen = openmm.Platform.getPlatform(name)
    structure = from_atoms(rock_salt)
    contexts = [
        context_of(
            create_system(structure.topology, ionic_model, backend=backend, precision=precision),
            structure.positions,
            *where,
        )
        for backend, precision, where in (
            ("torch", "single", (chosen,)),
            ("python", "double", ()),
        )
    ]
    compare(*contexts, energy=1e-5, forces=1e-4)


@pytest.mark.parametrize("long_range", ["openmm", "graph"])
def test_iterative(ionic_model, rock_salt, long_range):
    structure = from_atoms(rock_salt)
    options = {"solver": "iterative", "charge_tolerance": 1e-8, "long_range": long_range}
    system = create_system(structure.topology, ionic_model, backend="torch", **options)
    context = context_of(system, structure.positions)
    context.setVelocitiesToTemperature(300, 1)
    context.getIntegrator().step(6)
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    exact = create_system(structure.topology, ionic_model, solver="dense", long_range="graph")
    compare(context, context_of(exact, positions), energy=1e-5, forces=1e-4)


def test_forces_are_the_slope_of_the_energy(ionic_model, skewed_salt, rng):
    structure = from_atoms(skewed_salt)
    system = create_system(
        structure.topology, ionic_model, backend="torch", long_range="graph", total_charge=-1
    )
    context = context_of(system, structure.positions)
    _, forces = energy_and_forces(context)
    direction = rng.normal(size=forces.shape)
    energies = []
    for step in (1e-5, -1e-5):
        context.setPositions(structure.positions + step * direction)
        energies.append(energy_and_forces(context)[0])
    slope = (energies[1] - energies[0]) / 2e-5
    size = np.linalg.norm(forces) * np.linalg.norm(direction)
    assert abs((forces * direction).sum() - slope) < 1e-6 * size


def test_barostat_and_energy_conservation(ionic_model, rock_salt):
    """A trajectory under a barostat, and one at constant energy, as with the PythonForce."""
    structure = from_atoms(rock_salt)
    ends = []
    for backend in ("torch", "python"):
        system = create_system(structure.topology, ionic_model, backend=backend, long_range="graph")
        barostat = openmm.MonteCarloBarostat(1.0, 300.0, 2)
        barostat.setRandomNumberSeed(5)
        system.addForce(barostat)
        context = context_of(system, structure.positions)
        context.setVelocitiesToTemperature(300, 1)
        context.getIntegrator().step(8)
        state = context.getState(positions=True)
        ends.append((state.getPositions(asNumpy=True)._value, state.getPeriodicBoxVolume()._value))
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-7)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-9)


def test_two_contexts_keep_apart(ionic_model, cluster):
    """Each has what it remembers for itself."""
    structure = from_atoms(cluster)
    system = create_system(structure.topology, ionic_model, backend="torch")
    positions = (structure.positions, structure.positions * 1.05)
    expected = [energy_and_forces(context_of(system, p))[0] for p in positions]
    contexts = [context_of(system, p) for p in positions]
    for _ in range(2):
        for context, energy in zip(contexts, expected, strict=True):
            assert energy_and_forces(context)[0] == pytest.approx(energy, rel=1e-10)


def test_charges_can_be_looked_at(tmp_path, ionic_model, cluster):
    structure = from_atoms(cluster)
    systems = [
        create_system(structure.topology, ionic_model, backend=backend, total_charge=1)
        for backend in ("torch", "python")
    ]
    computation = get_computation(systems[0])
    assert get_computation(systems[0]) is computation
    # the bytes of a model file hold its entries in any order
    ours, theirs = (
        dataclasses.replace(get_computation(system).settings, model=b"") for system in systems
    )
    assert ours == theirs
    found, expected = (
        current_evaluation(context_of(system, structure.positions)) for system in systems
    )
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-6)
    simulation = app.Simulation(
        structure.topology, systems[0], openmm.VerletIntegrator(0.001), REFERENCE
    )
    simulation.context.setPositions(structure.positions)
    simulation.reporters.append(ChargeReporter(tmp_path / "charges.npy", 1))
    simulation.step(2)
    charges = load_charges(tmp_path / "charges.npy").charges
    assert charges.shape == (2, len(cluster))
    now = current_evaluation(simulation.context).charges
    np.testing.assert_allclose(charges[-1], now, atol=1e-9)


def test_which_backend(ionic_model, cluster):
    topology = from_atoms(cluster).topology
    system = create_system(topology, ionic_model, backend="torch")
    assert describe_backend(system).startswith("torch: TorchForce of openmm-torch")


def test_errors_come_out_complete(ionic_model, rock_salt):
    structure = from_atoms(rock_salt)
    system = create_system(
        structure.topology,
        ionic_model,
        backend="torch",
        solver="iterative",
        charge_tolerance=1e-9,
        max_iterations=1,
    )
    context = context_of(system, structure.positions)
    with pytest.raises(openmm.OpenMMException, match=r"raise max_iterations \(now 1\)"):
        energy_and_forces(context)


def test_published_sums_are_refused(make_model, rock_salt):
    model = make_model(legacy_periodic=True)
    with pytest.raises(BackendError, match="expected 'python'"):
        create_system(from_atoms(rock_salt).topology, model, backend="torch")


# -------------------------------------------------------------------------- through files


OTHER_PROCESS = """
import sys
import torch
import openmm_nequiplr
import numpy as np
import openmm
{load}
from openmmtorch import TorchForce
context = openmm.Context(
    system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
)
context.setPositions(np.load("positions.npy"))
print(repr(context.getState(energy=True).getPotentialEnergy()._value))
from openmm_nequiplr.simulation import current_evaluation
print(repr(float(current_evaluation(context).charges[0])))
"""

READ = """
from openmm_nequiplr.simulation import deserialize_system
system = deserialize_system(open('system.xml').read())"""


def test_through_xml_into_another_process(tmp_path, ionic_model, rock_salt):
    structure = from_atoms(rock_salt)
    system = create_system(structure.topology, ionic_model, backend="torch", total_charge=1)
    context = context_of(system, structure.positions)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(tmp_path / "positions.npy", structure.positions)
    lines = run(OTHER_PROCESS.format(load=READ), tmp_path, {"PYTHONPATH": path(ROOT)})
    assert float(lines[0]) == pytest.approx(energy_and_forces(context)[0], rel=1e-10)
    assert float(lines[1]) == pytest.approx(current_evaluation(context).charges[0], abs=1e-9)


def path(*first):
    return os.pathsep.join([*map(str, first), *filter(None, [os.environ.get("PYTHONPATH")])])


def run(program, folder, environment):
    """The last lines that another interpreter writes."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-2:]


def test_other_torch_forces_are_read_too():
    class Spring(torch.nn.Module):
        def forward(self, positions: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            return k * (positions**2).sum()

    force = openmmtorch.TorchForce(torch.jit.script(Spring()))
    force.addGlobalParameter("k", 2.5)
    force.setForceGroup(3)
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    system.addForce(openmm.CMMotionRemover())
    restored = deserialize_system(openmm.XmlSerializer.serialize(system))
    assert restored.getNumForces() == 2
    context = context_of(restored, [[1.0, 2.0, 0.0]])
    assert energy_and_forces(context)[0] == pytest.approx(12.5)
    assert sorted(f.getForceGroup() for f in restored.getForces()) == [0, 3]


WITHOUT_THE_PACKAGE = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("openmm_nequiplr", "e3nn", "vesin"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocker())
try:
    import openmm_nequiplr
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the package is there")
import torch
import numpy as np
import openmm
from openmmtorch import TorchForce

force = TorchForce("model.pt")
force.setOutputsForces(True)
force.setUsesPeriodicBoundaryConditions(len(sys.argv) > 1 or PERIODIC)
system = openmm.System()
positions = np.load("positions.npy")
for _ in positions:
    system.addParticle(20.0)
system.addForce(force)
if PERIODIC:
    system.setDefaultPeriodicBoxVectors(*np.load("box.npy"))
context = openmm.Context(
    system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
)
context.setPositions(positions)
for _ in range(3):
    state = context.getState(energy=True, forces=True)
np.save("forces.npy", state.getForces(asNumpy=True)._value)
print(repr(state.getPotentialEnergy()._value))
print(json.loads(torch.jit.load("model.pt").notes)["total_charge"])
"""


@pytest.mark.parametrize("name", ["skewed_salt", "cluster"])
def test_exported_models_need_no_package(request, tmp_path, ionic_model, name):
    structure = from_atoms(request.getfixturevalue(name))
    export_torch_force(ionic_model, structure.topology, tmp_path / "model.pt", total_charge=1)
    np.save(tmp_path / "positions.npy", structure.positions)
    periodic = structure.box is not None
    if periodic:
        np.save(tmp_path / "box.npy", structure.box)
    program = f"PERIODIC = {periodic}\n{WITHOUT_THE_PACKAGE}"
    lines = run(program, tmp_path, {})
    system = create_system(
        structure.topology, ionic_model, total_charge=1, long_range="graph", backend="python"
    )
    context = context_of(system, structure.positions)
    energy, forces = energy_and_forces(context)
    assert abs(float(lines[0]) - energy) < 1e-6 * scale_of(context)
    assert relative(np.load(tmp_path / "forces.npy"), forces) < 1e-5
    assert json.loads(lines[1]) == 1.0
