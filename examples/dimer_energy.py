"""Energy of two ions far beyond the training data and every cutoff, with a model trained here.

    python dimer_energy.py [--minutes 22] [--output runs/charged_dimer]

A model of a guanidinium-like cation and a carboxylate is trained at 6.6 to 12.2 Å in a box of 30 Å
(dimers of Huguenin-Dumittan et al., J. Phys. Chem. Lett. 14, 9612 (2023)). At these distances it is
compared with DFT. Without the box it is evaluated up to 20 Å, where the ions attract each other as
−k_e q²/r. The ions in the data are rigid, so the model does not describe their vibrations and is
not fit for dynamics. If the output directory already contains a training, its model is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.analysis.figures import legend_above, new_figure, save_figure
from openmm_nequiplr.training.run import train
from openmm_nequiplr.units import COULOMB_CONSTANT

FOLDER = Path(__file__).parent
DATA = FOLDER / "data" / "charged_dimer_train.extxyz"
FAR = 1000.0


def trained_model() -> Path:
    """The model file of ``charged_dimer.yaml``, which is trained now unless it exists."""
    parser = argparse.ArgumentParser(description="the energy of two ions, far apart")
    parser.add_argument("--minutes", type=float, default=22.0, help="of training (default: 22)")
    parser.add_argument("--output", type=Path, default=Path("runs/charged_dimer"))
    options = parser.parse_args()
    model = options.output / "model.safetensors"
    if not model.is_file():
        changes = {"max_time": options.minutes, "output": str(options.output)}
        train(FOLDER / "charged_dimer.yaml", overrides=changes)
    return model


def main() -> None:
    calculator = NequIPLRCalculator(trained_model())
    frames = ase.io.read(DATA, ":")
    for atoms in frames:
        atoms.calc = calculator
    separations = np.array([atoms.info["separation"] for atoms in frames])
    reference = np.array([atoms.info["REF_energy"] for atoms in frames])
    found = np.array([atoms.get_potential_energy() for atoms in frames])
    offset = np.mean(found - reference)
    errors = 1000 * (found - reference - offset)
    print("separation (Å), relative energy by DFT (eV), error of the model (meV)")
    for distance, energy, error in zip(separations, reference - reference[-1], errors, strict=True):
        print(f"  {distance:6.2f} {energy:9.3f} {error:+8.1f}")

    # Move the anion, the last seven atoms, along the line on which the data have it.
    start, anion = frames[0].copy(), slice(16, 23)
    start.pbc = False
    direction = frames[-1].positions[16] - frames[-1].positions[0]
    direction -= frames[0].positions[16] - frames[0].positions[0]
    direction /= np.linalg.norm(direction)

    def ions(move: float) -> tuple[float, float, float]:
        """Distance of the ions' centres of charge, energy, and the cation's charge."""
        atoms = start.copy()
        atoms.calc = calculator
        atoms.positions[anion] += move * direction
        charges = atoms.get_charges()
        plus, minus = charges[:16], charges[16:]
        centres = [
            np.average(atoms.positions[part], axis=0, weights=charge)
            for part, charge in ((slice(0, 16), plus), (anion, minus))
        ]
        return (
            float(np.linalg.norm(centres[0] - centres[1])),
            atoms.get_potential_energy(),
            sum(plus),
        )

    _, apart, whole = ions(FAR)
    moves = np.arange(0.0, 14.0, 0.5)
    distance, energy, charge = np.array([ions(move) for move in moves]).T
    coulomb = -COULOMB_CONSTANT * whole**2 / distance
    print(
        "in free space: distance (Å), interaction energy and −k_e q²/r (eV), charge of an ion (e)"
    )
    for row in zip(distance[::3], energy[::3] - apart, coulomb[::3], charge[::3], strict=True):
        print("  {:6.2f} {:9.3f} {:9.3f} {:+8.3f}".format(*row))

    figure, (left, right) = new_figure(2, 4.5, 3.6)
    left.plot(separations, found - offset - reference[-1], label="model")
    left.plot(separations, reference - reference[-1], "o", label="DFT")
    left.set(xlabel="separation in the box (Å)", ylabel="relative energy (eV)")
    right.plot(distance, energy - apart, label="model")
    right.plot(distance, coulomb, "--", label="$-k_e q^2/r$")
    right.axvline(separations[-1], color="grey", linewidth=0.8)
    right.set(xlabel="distance of the ions in free space (Å)", ylabel="interaction energy (eV)")
    for axes in (left, right):
        legend_above(axes)
    save_figure(figure, "dimer_energy.png")
    print("picture: dimer_energy.png")


if __name__ == "__main__":
    main()
