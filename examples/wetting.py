"""Au2 on MgO(001): three dopants eleven ångströms below determine its orientation.

On clean MgO the dimer stands up (non-wetting), on doped MgO it lies down (wetting). A model without
charges, whose range is shorter than the distance between Au and Al, must predict the same energy
difference on both surfaces. Here ``au2-mgo`` evaluates the four DFT minima of Ko, Finkler,
Goedecker and Behler, Nat. Commun. 12, 398 (2021), as they are and with the gold relaxed. The
energies and the charge of the gold are printed.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase.constraints import FixAtoms
from ase.optimize import FIRE

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.analysis.figures import legend_above, new_figure, save_figure

DATA = Path(__file__).parent / "data" / "au2_mgo_minima.extxyz"


def main() -> None:
    calculator = NequIPLRCalculator("au2-mgo")
    energy: dict[tuple[str, str, str], float] = {}
    charge: dict[tuple[str, str, str], float] = {}
    for atoms in ase.io.read(DATA, ":"):
        info = dict(atoms.info)
        case = info["substrate"], info["au_geometry"]
        gold = atoms.symbols == "Au"
        energy[("DFT", *case)], charge[("DFT", *case)] = info["dft_energy"], info["dft_gold_charge"]
        atoms.calc = calculator
        for stage in ("single point", "relaxed"):
            if stage == "relaxed":
                atoms.set_constraint(FixAtoms(mask=~gold))
                FIRE(atoms, logfile=None).run(fmax=0.02, steps=200)
            energy[(stage, *case)] = atoms.get_potential_energy()
            charge[(stage, *case)] = float(atoms.get_charges()[gold].mean())

    stages, substrates = ("DFT", "single point", "relaxed"), ("undoped", "doped")
    difference = {
        (stage, s): 1000 * (energy[stage, s, "wetting"] - energy[stage, s, "non_wetting"])
        for stage in stages
        for s in substrates
    }
    print("E(wetting) − E(non-wetting), meV")
    for stage in stages:
        clean, doped = (difference[stage, s] for s in substrates)
        print(
            f"  {stage:<13} undoped {clean:+6.0f}, doped {doped:+6.0f}, change {clean - doped:6.0f}"
        )
    print("charge of a gold atom, e")
    for case in sorted({key[1:] for key in charge}):
        values = ", ".join(f"{stage} {charge[(stage, *case)]:+.3f}" for stage in stages)
        print(f"  {case[0]:<8} {case[1]:<12} {values}")
    draw(difference, charge, stages, substrates)


def draw(difference, charge, stages, substrates) -> None:
    """Draw the energy differences and the charges as bars in ``wetting.png``."""
    figure, (left, right) = new_figure(2, 4.5, 3.6)
    place = np.arange(len(substrates))
    for number, stage in enumerate(stages):
        shift = 0.26 * (number - 1)
        left.bar(place + shift, [difference[stage, s] for s in substrates], 0.24, label=stage)
        means = [
            np.mean([charge[stage, s, g] for g in ("wetting", "non_wetting")]) for s in substrates
        ]
        right.bar(place + shift, means, 0.24)
    for axes, label in ((left, "E(wetting) − E(non-wetting) (meV)"), (right, "charge of Au (e)")):
        axes.set_xticks(place, substrates)
        axes.set_ylabel(label)
        axes.axhline(0.0, color="black", linewidth=0.8)
    legend_above(left)
    save_figure(figure, "wetting.png")
    print("picture: wetting.png")


if __name__ == "__main__":
    main()
