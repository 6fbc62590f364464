"""Relax a carbon chain with ASE and print the location of its charge.

The start structure of the shipped model ``carbon-chain`` is relaxed at its total charge. Then its
end is displaced by 0.1 Å and the charges are compared: the charges of distant atoms change too.
"""

from __future__ import annotations

import ase.io
import numpy as np
from ase.optimize import BFGS

from openmm_nequiplr import NequIPLRCalculator, shipped_structure


def main() -> None:
    atoms = ase.io.read(shipped_structure("carbon-chain"))
    atoms.calc = NequIPLRCalculator("carbon-chain")
    BFGS(atoms, logfile="-").run(fmax=0.02, steps=100)
    charges = atoms.get_charges()
    print(f"energy {atoms.get_potential_energy():.4f} eV, total charge {charges.sum():+.3f} e")

    pulled = atoms.copy()
    pulled.calc = atoms.calc
    end = int(np.argmax(atoms.get_distances(0, range(len(atoms)))))
    pulled.positions[end] += (
        0.1
        * (atoms[end].position - atoms[0].position)
        / (np.linalg.norm(atoms[end].position - atoms[0].position))
    )
    changes = pulled.get_charges() - charges
    print("atom      charge (e)  change when the end is pulled (me)")
    for atom, charge, change in zip(atoms, charges, changes, strict=True):
        print(f"{atom.symbol}{atom.index:<6d} {charge:+12.4f} {1000 * change:+12.2f}")


if __name__ == "__main__":
    main()
