"""A model exported to one TorchScript file, run by a TorchForce, compared with a PythonForce."""

import tempfile
from pathlib import Path

import numpy as np
import openmm
import torch

from openmm_nequiplr import create_system, export_torch_force, shipped_structure
from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import read_structure
from openmm_nequiplr.simulation.torchforce import load_openmmtorch

start = read_structure(shipped_structure("carbon-chain"))
try:
    openmmtorch = load_openmmtorch()
except BackendError as error:
    raise SystemExit(f"this example needs openmm-torch: {error}") from None

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "carbon-chain.pt"
    export_torch_force(
        "carbon-chain", start.topology, path, total_charge=start.total_charge, precision="double"
    )
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    # from here on, this is what a machine without this package does
    force = openmmtorch.TorchForce(str(path))
force.setOutputsForces(True)
exported = openmm.System()
for atom in start.topology.atoms():
    exported.addParticle(atom.element.mass)
exported.addForce(force)

twin = create_system(
    start.topology, "carbon-chain", total_charge=start.total_charge, precision="double"
)
results = []
for name, system in (("TorchForce", exported), ("PythonForce", twin)):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(start.positions)
    context.getIntegrator().step(20)
    state = context.getState(energy=True, forces=True)
    results.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
    print(f"{name:12s} potential energy after 20 steps {results[-1][0]:.6f} kJ/mol")

difference = np.linalg.norm(results[0][1] - results[1][1]) / np.linalg.norm(results[1][1])
print(f"forces differ by {difference:.1e} (relative rms), with torch {torch.__version__}")
