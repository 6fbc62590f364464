"""Lattice constant of bulk MgO: a run at constant temperature, then one at constant pressure.

The shipped model ``au2-mgo`` was trained only on MgO slabs under Au2. The inside of these slabs is
similar enough to the bulk for a lattice constant, but the model is not valid for MgO under
pressure.
"""

from __future__ import annotations

import numpy as np
import openmm
from ase.build import bulk
from openmm import app, unit

from openmm_nequiplr import create_system
from openmm_nequiplr.simulation import current_evaluation, from_atoms

TEMPERATURE = 300 * unit.kelvin
CELLS = 2  # cubic cells of 8 atoms along each direction


def run(simulation: app.Simulation, steps: int, every: int = 10) -> dict[str, float]:
    """Means over the second half of a run."""
    lengths, temperatures = [], []
    freedom = 3 * simulation.system.getNumParticles() - 3
    for _ in range(steps // every):
        simulation.step(every)
        state = simulation.context.getState(energy=True)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        lengths.append(np.linalg.det(box) ** (1 / 3) / CELLS)
        kinetic = state.getKineticEnergy() / unit.MOLAR_GAS_CONSTANT_R
        temperatures.append((2 * kinetic / freedom).value_in_unit(unit.kelvin))
    half = len(lengths) // 2
    return {"a": np.mean(lengths[half:]), "T": np.mean(temperatures[half:])}


def main() -> None:
    crystal = bulk("MgO", "rocksalt", a=4.25, cubic=True).repeat(CELLS)
    start = from_atoms(crystal)
    system = create_system(start.topology, "au2-mgo", total_charge=0)
    pressure, interval = 1 * unit.bar, 10
    barostat = openmm.MonteCarloBarostat(pressure, TEMPERATURE, 0)  # 0: no moves for now
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(
        TEMPERATURE, 10 / unit.picosecond, 2 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(start.topology, system, integrator)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(2 * TEMPERATURE, 1)  # half goes into the springs

    means = run(simulation, 100)
    print(f"NVT: {means['T']:.0f} K at a = {means['a']:.3f} Å")
    barostat.setFrequency(interval)
    simulation.context.reinitialize(preserveState=True)
    means = run(simulation, 200)
    print(f"NPT: {means['T']:.0f} K, a = {means['a']:.3f} Å at {pressure}")
    charges = current_evaluation(simulation.context).charges
    magnesium = crystal.symbols == "Mg"
    print(f"charge of Mg {charges[magnesium].mean():+.3f} ± {charges[magnesium].std():.3f} e")
    assert 4.2 < means["a"] < 4.35


if __name__ == "__main__":
    main()
