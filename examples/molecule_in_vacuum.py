"""A protonated carbon chain in vacuum, at constant energy: is the energy conserved?

The charges change with every step, and forces hold their response; so the total energy stays.
"""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app, unit

from openmm_nequiplr import create_system, shipped_structure
from openmm_nequiplr.simulation import current_evaluation, read_structure

EV = 96.48533212331002  # kJ/mol


def main(steps: int = 240, every: int = 4) -> None:
    start = read_structure(shipped_structure("carbon-chain"))
    system = create_system(start.topology, "carbon-chain", total_charge=start.total_charge)
    integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
    simulation = app.Simulation(start.topology, system, integrator)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)

    potential, total, charges = [], [], []
    for _ in range(steps // every):
        simulation.step(every)
        state = simulation.context.getState(energy=True)
        potential.append(state.getPotentialEnergy()._value / EV)
        total.append(potential[-1] + state.getKineticEnergy()._value / EV)
        charges.append(current_evaluation(simulation.context).charges)

    swing, left = 1000 * np.std(potential), 1000 * np.std(total)
    print(f"{steps} steps of 0.5 fs from 300 K, total charge {charges[-1].sum():+.6f} e")
    print(f"potential energy ± {swing:.2f} meV, total energy ± {left:.3f} meV")
    print("atom   mean charge    least     most (e)")
    names = [atom.name for atom in start.topology.atoms()]
    for symbol, values in zip(names, np.transpose(charges), strict=True):
        print(f"{symbol:<5} {values.mean():+12.4f} {values.min():+8.4f} {values.max():+8.4f}")
    assert left < 0.05 * swing


if __name__ == "__main__":
    main()
