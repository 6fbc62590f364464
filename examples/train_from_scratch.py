"""From nothing to molecular dynamics: make data, train a model, judge it, run it. No download.

The reference is a classical model of NaCl clusters that has all that NequIP-LR is about: charges
that come from a charge equilibration, and so depend on the whole cluster and its total charge, and
a short-range repulsion. With DFT data everything from ``train`` on stays the same.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import openmm
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from openmm import app, unit
from scipy.special import erf

from openmm_nequiplr import create_system
from openmm_nequiplr.data import read_structures
from openmm_nequiplr.simulation import current_evaluation, from_atoms
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.run import train

COULOMB = 14.399645  # eV Å/e²
ELECTRONEGATIVITY = {"Na": 2.0, "Cl": 10.0}  # eV/e
HARDNESS = {"Na": 4.6, "Cl": 9.4}  # eV/e²
WIDTH = 2.0  # Å, of the Gaussian charges
REPULSION, LENGTH = 600.0, 0.33  # eV and Å


def reference(atoms: Atoms, total_charge: float) -> SinglePointCalculator:
    """Energy (eV), forces (eV/Å) and charges (e) of the classical model."""
    count = len(atoms)
    vectors = atoms.positions[:, None] - atoms.positions
    r = np.linalg.norm(vectors, axis=-1) + np.eye(count)  # no zeros to divide by
    apart = 1.0 - np.eye(count)
    coulomb = COULOMB * erf(r / WIDTH) / r * apart
    slope = COULOMB * 2 / np.sqrt(np.pi) / WIDTH * np.exp(-((r / WIDTH) ** 2)) / r - coulomb / r
    chi = np.array([ELECTRONEGATIVITY[s] for s in atoms.symbols])
    own = 2 * COULOMB / np.sqrt(np.pi) / WIDTH  # a Gaussian charge in its own potential
    hard = np.array([HARDNESS[s] + own for s in atoms.symbols])
    # smallest χ·q + ½ q(J + K)q at the given total charge
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = coulomb + np.diag(hard)
    matrix[count, count] = 0.0
    q = np.linalg.solve(matrix, np.append(-chi, total_charge))[:count]
    wall = REPULSION * np.exp(-r / LENGTH) * apart
    energy = chi @ q + 0.5 * q @ (hard * q + coulomb @ q) + 0.5 * wall.sum()
    pull = (wall / LENGTH - np.outer(q, q) * slope * apart) / r
    forces = (pull[:, :, None] * vectors).sum(axis=1)  # q is at its minimum and adds nothing
    return SinglePointCalculator(atoms, energy=energy, forces=forces, charges=q)


def make_data(path: Path, seed: int, frames: int = 80) -> list[Atoms]:
    """Shaken cubes of eight ions, every second one with a charge of +1 e."""
    rng = np.random.default_rng(seed)
    cube = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    symbols = ["Na" if site.sum() % 2 else "Cl" for site in cube]
    made = []
    for number in range(frames):
        size = rng.uniform(2.6, 3.0)
        atoms = Atoms(symbols, size * cube + rng.normal(scale=0.12, size=(8, 3)))
        atoms.info["total_charge"] = float(number % 2)
        atoms.calc = reference(atoms, atoms.info["total_charge"])
        made.append(atoms)
    ase.io.write(path, made)
    return made


CONFIG = {
    "output": "from-scratch/training",
    "data": {"train": "train.extxyz", "num_validation": 8},
    "model": {
        "r_max": 5.5,
        "num_layers": 1,
        "num_layers_charge": 1,
        "l_max": 1,
        "num_features": 12,
        "num_bessels": 6,
        "invariant_layers": 1,
        "invariant_neurons": 24,
        "num_charge_basis": 4,
        "gaussian_widths": [1.0, 1.0],
    },
    "equilibration": {
        "hardness": {"Na": 4.0, "Cl": 8.0},
        "fit_electronegativity": True,
        "charge_epochs": 3,
        "charge_lr": 0.02,
    },
    "loss": {"energy_per_atom": 20.0, "forces": 1.0, "charges": 30.0},
    "optimizer": {"name": "adam", "lr": 0.015},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "batch_size": 4,
    "max_epochs": 28,
    "ema_decay": 0.95,
    "num_threads": 1,
    "trainer": {"accelerator": "cpu"},
}


def run_dynamics(model: Path, atoms: Atoms, steps: int = 200) -> None:
    """A neutral cluster at constant energy; its charges move with the ions."""
    start = from_atoms(atoms)
    system = create_system(start.topology, model, total_charge=0)
    integrator = openmm.VerletIntegrator(1 * unit.femtosecond)
    simulation = app.Simulation(start.topology, system, integrator)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    totals, charges = [], []
    for _ in range(10):
        simulation.step(steps // 10)
        state = simulation.context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) / 96.485)
        charges.append(current_evaluation(simulation.context).charges)
    spread = np.ptp(totals) * 1000 / len(atoms)
    print(f"NVE: total energy constant within {spread:.2f} meV/atom over {steps} fs")
    print(f"charge of the first ion from {min(q[0] for q in charges):+.3f} e", end=" ")
    print(f"to {max(q[0] for q in charges):+.3f} e")
    assert spread < 1.0


def spreads(frames: list[Atoms]) -> dict[str, float]:
    """Standard deviations: the errors of a model that has learned the means and nothing else.

    For charges those about the mean of each element.
    """
    charges = np.array([atoms.get_charges() for atoms in frames])
    chlorine = frames[0].symbols == "Cl"
    return {
        "energy_per_atom": np.std([atoms.get_potential_energy() / 8 for atoms in frames]),
        "forces": np.std([atoms.get_forces() for atoms in frames]),
        "charges": np.sqrt((charges[:, chlorine].var() + charges[:, ~chlorine].var()) / 2),
    }


def main() -> None:
    folder = Path("from-scratch")
    folder.mkdir(exist_ok=True)
    make_data(folder / "train.extxyz", seed=1)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    result = train(folder / "config.yaml", progress=False)
    assert result is not None

    unseen = make_data(folder / "test.extxyz", seed=2)[:20]
    ase.io.write(folder / "test.extxyz", unseen)
    structures = read_structures(folder / "test.extxyz")
    metrics = evaluate_model(result.model_path, structures, verbose=False).quantities()
    for name, unit_name in (("energy_per_atom", "meV"), ("forces", "meV/Å"), ("charges", "me")):
        error, spread = metrics[name].rmse, 1000 * spreads(unseen)[name]
        print(f"{name:<16} rmse {error:6.1f} {unit_name:<5}  standard deviation {spread:6.1f}")
        assert error < 0.3 * spread, f"{name} was not learned"
    run_dynamics(result.model_path, next(a for a in unseen if a.info["total_charge"] == 0.0))


if __name__ == "__main__":
    main()
