"""A proton at one end of a carbon chain moves charge along all of it.

The charges of C10H2 and of C10H3+ from ``carbon-chain`` and from DFT (Hirshfeld, data of Ko,
Finkler, Goedecker and Behler, Nat. Commun. 12, 398 (2021)) are shown along the chain. Then the
outermost hydrogen atom of the protonated end is pulled away in steps, and the charges at this end
and at the other end, 13 Å away, are printed.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.analysis.figures import (
    BLUE,
    ORANGE,
    legend_above,
    new_figure,
    save_figure,
)

DATA = Path(__file__).parent / "data" / "carbon_chains.extxyz"


def along(atoms) -> np.ndarray:
    """Position of each atom along the chain, Å; the end with more hydrogen is on the right."""
    centred = atoms.positions - atoms.positions.mean(axis=0)
    axis = np.linalg.svd(centred)[2][0]
    place = centred @ axis
    hydrogens = place[atoms.symbols == "H"]
    return place if np.sum(hydrogens > 0) >= np.sum(hydrogens < 0) else -place


def main() -> None:
    calculator = NequIPLRCalculator("carbon-chain")
    figure, (left, right) = new_figure(2, 4.5, 3.6)
    for atoms, color in zip(ase.io.read(DATA, ":"), (BLUE, ORANGE), strict=True):
        atoms.calc = calculator
        place = along(atoms)
        order = np.argsort(place)
        found, reference = atoms.get_charges(), atoms.arrays["dft_charges"]
        error = 1000 * np.sqrt(np.mean((found - reference) ** 2))
        name = atoms.get_chemical_formula() + ("+" if atoms.info["total_charge"] > 0 else "")
        print(f"{name}: rms error of the charges {error:.1f} me")
        print("  atom  place (Å)  model (e)    DFT (e)")
        for i in order:
            print(
                f"  {atoms.symbols[i]:<4} {place[i]:9.2f} {found[i]:+10.3f} {reference[i]:+10.3f}"
            )
        left.plot(place[order], found[order], color=color, label=name)
        left.plot(place[order], reference[order], "o", color=color, markersize=4)
    left.set(xlabel="place along the chain (Å)", ylabel="charge (e); points: DFT")
    legend_above(left)

    # The last of the structures is the protonated one: stretch the bonds of its proton's end.
    far, end = int(order[0]), int(order[-1])
    stretches = np.linspace(0.0, 0.15, 6)
    direction = atoms.positions[end] - atoms.positions[int(order[-3])]
    direction /= np.linalg.norm(direction)
    changes = []
    for stretch in stretches:
        moved = atoms.copy()
        moved.calc = calculator
        moved.positions[end] += stretch * direction
        changes.append(1000 * (moved.get_charges() - found)[[far, end]])
    distance = atoms.get_distance(far, end)
    print(
        f"pulling the {atoms.symbols[end]} of one end by {stretches[-1]:.2f} Å changes its charge"
    )
    print(
        f"by {changes[-1][1]:+.1f} me, and that of the other end, {distance:.1f} Å away, by",
        end=" ",
    )
    print(f"{changes[-1][0]:+.2f} me")
    right.plot(stretches, np.array(changes)[:, 0], "o-", label=f"far end, {distance:.1f} Å away")
    right.plot(stretches, np.array(changes)[:, 1], "s-", label="the atom that moves")
    right.set(xlabel="displacement (Å)", ylabel="change of the charge (me)")
    legend_above(right)
    save_figure(figure, "chain_charges.png")
    print("picture: chain_charges.png")


if __name__ == "__main__":
    main()
