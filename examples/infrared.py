"""Infrared spectrum of a dipeptide from normal modes and from molecular dynamics.

The molecule is relaxed. The intensities of its normal modes (finite differences of forces) are
computed from Born effective charges, which the model gives in one evaluation. The second spectrum
is that of the fluctuations of the dipole in a run of 0.75 ps at 300 K (``infrared.py STEPS`` sets
the number of steps). ``infrared.png`` shows both.
"""

from __future__ import annotations

import sys

import numpy as np
from ase.optimize import BFGS
from ase.units import _amu, _c, _e
from openmm import LangevinMiddleIntegrator, Platform, app, unit

from openmm_nequiplr import ChargeReporter, NequIPLRCalculator, create_system, shipped_structure
from openmm_nequiplr.analysis import infrared_spectrum
from openmm_nequiplr.analysis.figures import ORANGE, legend_above, new_figure, save_figure
from openmm_nequiplr.simulation import from_atoms, load_charges

STEPS, STEP = int(sys.argv[1]) if len(sys.argv) > 1 else 1500, 0.0005  # ps


def hessian(atoms, step: float = 0.01) -> np.ndarray:
    """Second derivatives of the energy by central differences of forces, eV/Å²."""
    rows = []
    for i, axis in np.ndindex(len(atoms), 3):
        forces = []
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[i, axis] += sign * step
            forces.append(moved.get_forces().ravel())
        rows.append((forces[1] - forces[0]) / (2.0 * step))
    return 0.5 * (np.array(rows) + np.array(rows).T)


def normal_modes(atoms) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers (1/cm) and intensities |dμ/dQ|² (e²/Da) of the vibrations."""
    weights = np.repeat(atoms.get_masses(), 3) ** -0.5
    squares, modes = np.linalg.eigh(weights[:, None] * hessian(atoms) * weights)
    # eV/Å²/Da to 1/s²
    frequencies = np.sqrt(np.abs(squares) * _e * 1e20 / _amu) * np.sign(squares)
    born = atoms.calc.get_property("born_effective_charges", atoms)
    slopes = born.transpose(1, 0, 2).reshape(3, -1) @ (weights[:, None] * modes)
    keep = slice(6, None)  # translations and rotations come first
    return frequencies[keep] / (2 * np.pi * 100 * _c), (slopes**2).sum(axis=0)[keep]


def run(atoms) -> np.ndarray:
    """Dipoles of every second step, e Å."""
    start = from_atoms(atoms)
    system = create_system(start.topology, "dipeptides", total_charge=0)
    integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, STEP)
    platform = Platform.getPlatform("CPU")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(STEPS // 10)
    simulation.reporters.append(ChargeReporter("charges.npy", 2))
    simulation.step(STEPS)
    simulation.reporters[0].close()
    return load_charges("charges.npy").dipoles


def main() -> None:
    import ase.io

    atoms = ase.io.read(shipped_structure("dipeptides"))
    atoms.info["total_charge"] = 0
    atoms.calc = NequIPLRCalculator("dipeptides", precision="double")
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    wavenumbers, intensities = normal_modes(atoms)
    strongest = np.sort(wavenumbers[np.argsort(intensities)[-6:]])
    print("strongest normal modes (1/cm):", " ".join(f"{k:.0f}" for k in strongest))

    spectrum = infrared_spectrum(run(atoms), 2 * STEP, resolution=45)
    figure, (axis,) = new_figure(1, 8.0, 3.6)
    axis.plot(
        spectrum.wavenumbers,
        spectrum.intensity / spectrum.intensity.max(),
        label="dynamics at 300 K",
    )
    axis.vlines(wavenumbers, 0, intensities / intensities.max(), color=ORANGE, label="normal modes")
    axis.set(xlabel="wavenumber (1/cm)", ylabel="absorption (arbitrary units)", xlim=(0, 4000))
    legend_above(axis)
    save_figure(figure, "infrared.png")
    print("wrote infrared.png")


if __name__ == "__main__":
    main()
