"""A shipped model as openmm-ml offers it: two steps with the packages of this environment."""

import openmm
from openmm import app, unit
from openmmml import MLPotential

from openmm_nequiplr import shipped_structure
from openmm_nequiplr.simulation import read_structure

start = read_structure(shipped_structure("au2-mgo"))
system = MLPotential("nequiplr", modelPath="au2-mgo").createSystem(start.topology)
platform = openmm.Platform.getPlatformByName("CPU")
simulation = app.Simulation(start.topology, system, openmm.VerletIntegrator(0.001), platform)
simulation.context.setPositions(start.positions)
simulation.step(2)
energy = simulation.context.getState(energy=True).getPotentialEnergy()
electronvolts = energy.value_in_unit(unit.kilojoule_per_mole) / 96.48533212
print(f"openmm-ml: {system.getNumParticles()} atoms, {electronvolts:.3f} eV")
