"""Metadynamics of charge transfer between the two halves of a carbon chain.

The collective variable is the difference of the charges of the two halves of C10H3+, with exact
gradients. OpenMM's own metadynamics biases it: the bias moves the atoms, and charge flows between
the halves. ``charge_metadynamics.py STEPS`` sets the number of steps. ``charge_metadynamics.png``
shows the variable along the run and the free energy so far.
"""

from __future__ import annotations

import sys

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, app, unit

from openmm_nequiplr import charge_variable, create_system, read_structure, shipped_structure
from openmm_nequiplr.analysis.figures import new_figure, save_figure

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 400
EVERY, RANGE = 4, (-0.2, 0.12)  # steps; e


def main() -> None:
    start = read_structure(shipped_structure("carbon-chain"))
    along = np.linalg.svd(start.positions - start.positions.mean(axis=0))[2][0]
    order = np.argsort(start.positions @ along)
    half = len(order) // 2
    system = create_system(start.topology, "carbon-chain", total_charge=1)
    difference = charge_variable(system, order[:half].tolist(), minus=order[half:].tolist())

    variable = app.BiasVariable(difference, *RANGE, 0.005, False)
    metadynamics = app.Metadynamics(
        system,
        [variable],
        300 * unit.kelvin,
        biasFactor=8,
        height=2 * unit.kilojoule_per_mole,
        frequency=2 * EVERY,
    )
    integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.0005)
    platform = Platform.getPlatform("CPU")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    values = []
    for _ in range(STEPS // EVERY):
        metadynamics.step(simulation, EVERY)
        values.append(metadynamics.getCollectiveVariables(simulation)[0])
    print(f"charge difference from {min(values):+.3f} to {max(values):+.3f} e")

    figure, (series, profile) = new_figure(2, 4.2, 3.2)
    series.plot(0.0005 * EVERY * np.arange(1, len(values) + 1), values)
    series.set(xlabel="time (ps)", ylabel="charge difference (e)")
    energies = metadynamics.getFreeEnergy()._value
    grid = np.linspace(*RANGE, len(energies))
    seen = (grid > min(values)) & (grid < max(values))
    profile.plot(grid[seen], (energies - energies[seen].min())[seen])
    profile.set(xlabel="charge difference (e)", ylabel="free energy (kJ/mol)")
    save_figure(figure, "charge_metadynamics.png")
    print("wrote charge_metadynamics.png")


if __name__ == "__main__":
    main()
