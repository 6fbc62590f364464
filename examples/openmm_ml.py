"""Au2 on MgO(001) through openmm-ml: three lines make the System. Needs openmm-ml."""

import sys

from openmm import LangevinMiddleIntegrator, app, unit
from openmmml import MLPotential

from openmm_nequiplr import shipped_structure
from openmm_nequiplr.simulation import read_structure

start = read_structure(shipped_structure("au2-mgo"))
potential = MLPotential("nequiplr", modelPath="au2-mgo")  # or MLPotential("nequiplr-au2-mgo")
system = potential.createSystem(start.topology, totalCharge=start.total_charge)
integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
simulation = app.Simulation(start.topology, system, integrator)
simulation.context.setPositions(start.positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)
log = {"step": True, "potentialEnergy": True, "temperature": True, "speed": True}
simulation.reporters.append(app.StateDataReporter(sys.stdout, 10, **log))
simulation.step(50)
