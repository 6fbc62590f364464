"""Two dipeptides 20 Å apart in a field: with one total charge, and with a constraint for each.

With one total charge they behave like two pieces of one metal: charge flows between them, and the
polarisability of the pair grows with the square of their distance. With a constrained charge for
each molecule, they respond separately.
"""

from __future__ import annotations

import ase.io
import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, app, unit

from openmm_nequiplr import NequIPLRCalculator, create_system, shipped_structure
from openmm_nequiplr.simulation import current_evaluation, from_atoms

DISTANCE, FIELD = 20.0, (0.0, 0.0, 0.5)  # Å, V/nm
VOLUME = 14.399645  # V Å/e: e Å²/V to Å³


def main() -> None:
    one = ase.io.read(shipped_structure("dipeptides"))
    other = one.copy()
    other.positions += [0.0, 0.0, DISTANCE]
    pair = one + other
    pair.info["total_charge"] = 0
    molecules = [range(len(one)), range(len(one), len(pair))]

    for groups in (None, molecules):
        pair.calc = NequIPLRCalculator("dipeptides", charge_groups=groups, precision="double")
        pair.calc.get_property("born_effective_charges", pair)
        polarizability = VOLUME * np.trace(pair.calc.results["polarizability"]) / 3.0
        start = from_atoms(pair)
        system = create_system(
            start.topology,
            "dipeptides",
            total_charge=0,
            electric_field=FIELD,
            charge_groups=groups,
            group_charges=groups and [0, 0],
        )
        integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.0005)
        platform = Platform.getPlatform("CPU")
        simulation = app.Simulation(start.topology, system, integrator, platform)
        simulation.context.setPositions(start.positions)
        simulation.step(5)
        charges = current_evaluation(simulation.context).charges
        print("one total charge:" if groups is None else "the charge of each molecule held:")
        print(f"  polarisability of the pair {polarizability:.1f} Å³")
        print(f"  charge of the upper molecule in the field {charges[len(one) :].sum():+.3f} e")


if __name__ == "__main__":
    main()
