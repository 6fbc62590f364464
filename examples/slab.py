"""A polar film as a bulk with vacuum and as a slab, with increasing vacuum and in a field.

The model is `au2-mgo`, with the gold above the surface. It was trained without ``slab``. The
example shows the convergence of the sums, not a property of the film.
"""

from __future__ import annotations

import ase.io
import numpy as np
from openmm import Context, Platform, VerletIntegrator, unit

from openmm_nequiplr import NequIPLRCalculator, create_system, shipped_structure
from openmm_nequiplr.simulation import from_atoms

film = ase.io.read(shipped_structure("au2-mgo"))
film.info["total_charge"] = 0.0
film.calc = NequIPLRCalculator("au2-mgo", precision="double")


def energy(vacuum: float, slab: bool) -> float:
    """Energy (eV) with the given width of the vacuum (Å)."""
    film.center(0.5 * vacuum, axis=2)
    film.pbc = (True, True, not slab)
    return film.get_potential_energy()


widths = (10.0, 20.0, 40.0)
print("vacuum (Å)      bulk, slab: energy less that of the slab with most vacuum (meV)")
found = np.array([[energy(width, slab) for slab in (False, True)] for width in widths])
for width, row in zip(widths, 1000.0 * (found - found[-1, 1]), strict=True):
    print(f"{width:10.0f} {row[0]:12.3f} {row[1]:12.3f}")

film.center(5.0, axis=2)
film.pbc = (True, True, False)
start = from_atoms(film)
system = create_system(
    start.topology, "au2-mgo", total_charge=0, slab=start.slab, electric_field=(0, 0, 0)
)
context = Context(system, VerletIntegrator(0.001), Platform.getPlatform("CPU"))
context.setPositions(start.positions)
print("field along the normal (V/nm)   energy (eV)")
for strength in (-1.0, 0.0, 1.0):
    context.setParameter("electric_field_z", strength)
    value = context.getState(energy=True).getPotentialEnergy()
    print(f"{strength:29.1f} {value.value_in_unit(unit.kilojoule_per_mole) / 96.48533212:16.4f}")
