"""Systems whose model is a TorchScript graph, against the PythonForce and the evaluator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

import openmm_nequiplr
from openmm_nequiplr import create_system, export_torch_force
from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import (
    current_evaluation,
    describe_backend,
    deserialize_system,
    from_atoms,
)
from openmm_nequiplr.simulation.torchforce import load_openmmtorch

from .twins import context_of, energy_and_forces, relative

try:
    openmmtorch = load_openmmtorch()
except BackendError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.optimized
REFERENCE = openmm.Platform.getPlatform("Reference")
ROOT = Path(openmm_nequiplr.__file__).parents[1]


def scale_of(context):
    return 96.485 * sum(abs(part) for part in current_evaluation(context).parts.values())


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
