"""Au2 on MgO(001) at 300 K in OpenMM, with charges that redistribute at every step."""

import sys

from openmm import LangevinMiddleIntegrator, app, unit

from openmm_nequiplr import ChargeReporter, create_system, read_structure, shipped_structure

start = read_structure(shipped_structure("au2-mgo"))
system = create_system(start.topology, "au2-mgo", total_charge=start.total_charge)
integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
simulation = app.Simulation(start.topology, system, integrator)
simulation.context.setPositions(start.positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)
log = {"step": True, "potentialEnergy": True, "temperature": True, "speed": True}
simulation.reporters.append(app.StateDataReporter(sys.stdout, 10, **log))
simulation.reporters.append(app.DCDReporter("au2-mgo.dcd", 10))
simulation.reporters.append(ChargeReporter("au2-mgo-charges.npy", 10))
simulation.step(100)
