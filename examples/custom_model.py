"""Build a model from its configuration, print its energy, save it and load it again.

The weights are random, because the example only shows the interface. ``nequiplr train`` trains
them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from ase.build import bulk

from openmm_nequiplr import (
    ModelConfig,
    NequIPLRCalculator,
    NequIPLRPotential,
    load_model,
    save_model,
)


def main() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        type_names=("Na", "Cl"),
        r_max=4.0,
        num_layers=2,
        num_layers_charge=1,
        l_max=1,
        parity=True,
        num_features=8,
        avg_num_neighbors=18.0,
    )
    model = NequIPLRPotential(config).double()
    print(f"{sum(p.numel() for p in model.parameters())} parameters")

    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    salt.rattle(0.05, seed=1)
    salt.calc = NequIPLRCalculator(model)
    print(f"energy {salt.get_potential_energy():.6f} eV")
    for name, value in salt.calc.results["energy_parts"].items():
        print(f"  {name:<20} {value:+.6f} eV")
    print(f"largest force {abs(salt.get_forces()).max():.4f} eV/Å")
    print(f"charges of Na {salt.get_charges()[salt.symbols == 'Na'].mean():+.4f} e on average")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random-nacl.safetensors"
        save_model(model, path, metadata={"training data": "none"})
        again = load_model(path)
        print(f"{path.name}: {path.stat().st_size} bytes, {again.metadata}")


if __name__ == "__main__":
    main()
