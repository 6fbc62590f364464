"""Charges, dipoles and distances along a stored trajectory, and pictures of them.

A short run of Au2 on MgO(001) is stored as an ordinary trajectory without charges, as any program
might have written it. The model then says what the charges were.
"""

from __future__ import annotations

import mdtraj
import numpy as np
from openmm import LangevinMiddleIntegrator, app, unit

from openmm_nequiplr import create_system, shipped_structure
from openmm_nequiplr.analysis import (
    charge_distributions,
    plot_charge_distributions,
    plot_properties,
    plot_radial_distributions,
    radial_distributions,
    recompute,
)
from openmm_nequiplr.simulation import read_structure


def write_trajectory() -> None:
    """100 fs at 300 K in ``au2-mgo.dcd``, and ``au2-mgo.pdb`` to tell what the atoms are."""
    start = read_structure(shipped_structure("au2-mgo"))
    system = create_system(start.topology, "au2-mgo", total_charge=start.total_charge)
    integrator = LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
    )
    simulation = app.Simulation(start.topology, system, integrator)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.reporters.append(app.DCDReporter("au2-mgo.dcd", 5, enforcePeriodicBox=False))
    simulation.step(100)
    with open("au2-mgo.pdb", "w", encoding="utf-8") as handle:
        app.PDBFile.writeFile(start.topology, start.positions * unit.nanometer, handle)


def main() -> None:
    write_trajectory()
    trajectory = mdtraj.load("au2-mgo.dcd", top="au2-mgo.pdb")

    found = recompute("au2-mgo", trajectory, output="au2-mgo.npz")
    gold = np.array(found.symbols) == "Au"
    first, second = found.charges[:, gold].mean(axis=0)
    print(f"{found.num_frames} frames; the charges of the two gold atoms are", end=" ")
    print(f"{first:+.3f} and {second:+.3f} e on average")
    print(f"dipole across the slab from {found.dipoles[:, 2].min():+.2f}", end=" ")
    print(f"to {found.dipoles[:, 2].max():+.2f} e Å")

    distances = radial_distributions(trajectory, r_max=8.0)
    oxygen = distances.coordination_number("Au", "O", 2.6)
    print(f"a gold atom has {oxygen:.2f} oxygen atoms within 2.6 Å on average")

    plot_properties(found, "au2-mgo-properties.png")
    plot_radial_distributions(distances, "au2-mgo-radial.png")
    charges = charge_distributions(found.charges, found.symbols, bins=30)
    plot_charge_distributions(charges, "au2-mgo-charges.png")
    print("pictures: au2-mgo-properties.png, au2-mgo-radial.png, au2-mgo-charges.png")


if __name__ == "__main__":
    main()
