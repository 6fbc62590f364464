"""Structures with energies, forces and charges of GFN1-xTB, to train on before the real data.

A hundred DFT structures do not show a network all that atoms do. xTB is far off in detail, but a
model that has learnt a thousand of its structures starts much nearer to DFT than a random one:

    python examples/xtb_data.py examples/carbon_chain.yaml --output runs/carbon_chain_xtb.extxyz
    nequiplr train examples/carbon_chain.yaml

Short Langevin dynamics starts from the structures that CONFIG trains on (molecules; without CONFIG
from the shipped carbon chain, few of them, to see how it goes). Needs tblite (extra ``xtb``).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

from openmm_nequiplr import shipped_structure


def starts_of(config_path: Path) -> list[Atoms]:
    """Geometries of the training part of a configuration: no label is taken over."""
    from openmm_nequiplr.training.config import load_config
    from openmm_nequiplr.training.run import read_parts

    config, _ = load_config(config_path)
    found = []
    for structure in read_parts(config, config_path).train:
        atoms = Atoms(structure.symbols, structure.positions)
        atoms.info["total_charge"] = structure.total_charge
        found.append(atoms)
    return found


def sample(start: Atoms, arguments: argparse.Namespace, rng: np.random.Generator) -> list[Atoms]:
    """Structures of one trajectory, every tenth step after a while."""
    atoms, charge = start.copy(), float(start.info["total_charge"])
    atoms.calc = TBLite(method=arguments.method, charge=charge, verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=arguments.temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        1.0 * units.fs,
        temperature_K=arguments.temperature,
        friction=0.02 / units.fs,
        rng=rng,
    )
    dynamics.run(40)
    found = []
    for _ in range(arguments.samples):
        dynamics.run(10)
        frame = Atoms(atoms.symbols, atoms.positions)
        frame.info.update(total_charge=charge, REF_energy=atoms.get_potential_energy())
        frame.arrays["REF_forces"] = atoms.get_forces()
        frame.arrays["REF_charges"] = atoms.get_charges()
        found.append(frame)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, nargs="?", help="training configuration")
    parser.add_argument("--output", type=Path, default=Path("xtb_data.extxyz"))
    parser.add_argument("--method", default="GFN1-xTB")
    parser.add_argument("--temperature", type=float, default=280.0, help="K")
    parser.add_argument("--starts", type=int, default=48, help="of each composition")
    parser.add_argument("--samples", type=int, default=20, help="from each start")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="ase")
    rng = np.random.default_rng(0)
    if arguments.config is None:
        starts = [ase.io.read(shipped_structure("carbon-chain"))]
        arguments.starts, arguments.samples = 1, 3
    else:
        starts = starts_of(arguments.config)
    found: list[Atoms] = []
    for formula in sorted({atoms.get_chemical_formula() for atoms in starts}):
        own = [atoms for atoms in starts if atoms.get_chemical_formula() == formula]
        for number in range(arguments.starts):
            found += sample(own[number % len(own)], arguments, rng)
        forces = np.concatenate([f.arrays["REF_forces"] for f in found if len(f) == len(own[0])])
        print(f"{formula}: rms force {np.sqrt(np.mean(forces**2)):.2f} eV/Å", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(arguments.output, [found[i] for i in rng.permutation(len(found))])
    print(f"{len(found)} structures: {arguments.output}")


if __name__ == "__main__":
    main()
