"""Reference data for a training: structures of a short run, labelled and written as extended XYZ.

Here the shipped model ``carbon-chain`` plays the reference method, so that this runs within a
minute. With a DFT calculator of ASE in its place, the labels are DFT's.
"""

from __future__ import annotations

import ase.io
from ase.calculators.singlepoint import SinglePointCalculator
from openmm import LangevinMiddleIntegrator, app, unit

from openmm_nequiplr import NequIPLRCalculator, create_system, shipped_structure
from openmm_nequiplr.simulation import read_structure, to_atoms

FRAMES, STEPS_BETWEEN = 100, 10


def main() -> None:
    start = read_structure(shipped_structure("carbon-chain"))
    system = create_system(start.topology, "carbon-chain", total_charge=start.total_charge)
    integrator = LangevinMiddleIntegrator(
        400 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond
    )
    simulation = app.Simulation(start.topology, system, integrator)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(400 * unit.kelvin, 1)

    reference = NequIPLRCalculator("carbon-chain")  # your DFT calculator
    frames = []
    for _ in range(FRAMES):
        simulation.step(STEPS_BETWEEN)
        state = simulation.context.getState(positions=True)
        atoms = to_atoms(start.topology, state.getPositions(asNumpy=True)._value)
        atoms.info["total_charge"] = start.total_charge  # e
        atoms.calc = reference
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        labels["charges"] = atoms.get_charges()
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write("chain.extxyz", frames)
    print(f"{len(frames)} structures of {start.num_atoms} atoms in chain.extxyz")


if __name__ == "__main__":
    main()
