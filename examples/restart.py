"""Run, stop, and go on with a new simulation: the same trajectory as without the stop.

OpenMM's checkpoints hold positions, velocities, box and the state of the random numbers. The force
depends on positions and box alone (this system's charges are solved for directly), so there is
nothing else to save. On platform CPU the two trajectories agree to the last bit. ``nequiplr md
--restart`` continues log, trajectory and charges as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from openmm_nequiplr import create_system, shipped_structure
from openmm_nequiplr.simulation import read_structure

START = read_structure(shipped_structure("au2-mgo"))


def make_simulation() -> app.Simulation:
    """Everything that a script does before its first step."""
    system = create_system(START.topology, "au2-mgo", total_charge=START.total_charge)
    integrator = openmm.LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    return app.Simulation(START.topology, system, integrator)


def positions(simulation: app.Simulation) -> np.ndarray:
    """Shape (N, 3), Å."""
    state = simulation.context.getState(positions=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)


def main() -> None:
    first = make_simulation()
    first.context.setPositions(START.positions)
    first.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    first.step(20)
    first.saveCheckpoint("au2-mgo.chk")
    print(f"checkpoint of {Path('au2-mgo.chk').stat().st_size} bytes at step {first.currentStep}")
    first.step(20)  # as if there had been no stop

    second = make_simulation()
    second.loadCheckpoint("au2-mgo.chk")
    print(f"a new simulation goes on at step {second.currentStep}")
    second.step(20)
    difference = np.abs(positions(second) - positions(first)).max()
    moved = np.abs(positions(second) - 10 * START.positions).max()
    print(f"after step {second.currentStep} positions differ by {difference:.1e} Å;", end=" ")
    print(f"the farthest atom has moved by {moved:.2f} Å")
    assert difference < 1e-6


if __name__ == "__main__":
    main()
