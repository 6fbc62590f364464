"""Eight independent trajectories of one molecule in one Context, with the charges of each.

The copies lie on top of one another and do not notice: each has its own neighbours, its own charges
and its own noise.
"""

from __future__ import annotations

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, app, unit

from openmm_nequiplr import create_system, current_evaluation, read_structure, shipped_structure

REPLICAS, STEPS = 8, 60


def main() -> None:
    start = read_structure(shipped_structure("dipeptides"))
    positions = start.positions * unit.nanometer
    copies = app.Modeller(start.topology, positions)
    for _ in range(REPLICAS - 1):
        copies.add(start.topology, positions)

    system = create_system(copies.topology, "dipeptides", total_charge=0, replicas=REPLICAS)
    bath = 300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond
    integrator = LangevinMiddleIntegrator(*bath)
    simulation = app.Simulation(copies.topology, system, integrator, Platform.getPlatform("CPU"))
    simulation.context.setPositions(copies.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(STEPS)

    now = current_evaluation(simulation.context)
    charges = now.charges.reshape(REPLICAS, -1)
    for number, (energy, own) in enumerate(zip(now.replica_energies, charges, strict=True)):
        above = energy - now.replica_energies.mean()
        print(f"replica {number}: {above:+.3f} eV, charges from {own.min():.2f} to {own.max():.2f}")
    spread = charges.std(axis=0)
    print(f"an atom's charge differs by up to {np.max(spread):.3f} e (rms) between the copies")


if __name__ == "__main__":
    main()
