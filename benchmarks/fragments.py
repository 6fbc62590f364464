"""Cost of holding the charge of every molecule: solves for 500 waters, against one total charge."""

from __future__ import annotations

import argparse
import copy

import numpy as np
import parts
import torch
from ase import Atoms
from ase.build import molecule

from openmm_nequiplr.conditions import ChargeConditions
from openmm_nequiplr.model import ModelConfig, NequIPLRPotential
from openmm_nequiplr.model.building import GraphBuilder
from openmm_nequiplr.model.evaluation import Evaluator

#: Å³ of a molecule in the liquid.
VOLUME = 29.9
#: Å that atoms move in a step of 0.5 fs at 300 K.
STEP = 0.008


def waters(count: int, rng: np.random.Generator) -> Atoms:
    """Molecules in random orientations on a lattice of the density of the liquid."""
    edge = (VOLUME * count) ** (1.0 / 3.0)
    side = int(np.ceil(count ** (1.0 / 3.0)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    box = Atoms(cell=[edge] * 3, pbc=True)
    for site in sites[rng.choice(len(sites), count, replace=False)]:
        one = molecule("H2O")
        one.euler_rotate(*rng.uniform(0.0, 360.0, 3))
        one.positions += site * edge / side - one.get_center_of_mass()
        box += one
    return box


def untrained() -> NequIPLRPotential:
    """A small model with charges of the size of those in water."""
    torch.manual_seed(7)
    config = ModelConfig(
        type_names=("H", "O"), r_max=4.0, num_layers=1, num_layers_charge=1, l_max=1, num_features=8
    )
    model = NequIPLRPotential(config)
    model.electronegativity_shifts.copy_(torch.tensor([0.0, 6.0]))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=500)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts.measure()
    rng = np.random.default_rng(1)
    atoms, model = waters(options.molecules, rng), untrained()
    groups = {"one": None, "each": np.arange(len(atoms)) // 3}
    evaluators = {name: Evaluator(copy.deepcopy(model), solver="iterative") for name in groups}
    builders = {
        name: GraphBuilder(model.config, atoms.numbers, True, skin=1.0, lattice_sum=False,
                           conditions=ChargeConditions(charge_groups=labels))
        for name, labels in groups.items()
    }  # fmt: skip
    velocity = rng.normal(0.0, STEP, atoms.positions.shape)
    times: dict[str, list[float]] = {name: [] for name in groups}
    iterations: dict[str, list[tuple[int, int]]] = {name: [] for name in groups}
    for name in groups:  # what is compiled and allocated once does not count
        Evaluator(copy.deepcopy(model), solver="iterative")(
            builders[name](atoms.positions, atoms.cell)
        )
    for step in range(options.steps):
        moved = atoms.positions + np.sin(0.1 * step) * 10.0 * velocity
        for name in groups:
            graph = builders[name](moved, atoms.cell.array)
            with parts.collect() as found:
                result = evaluators[name](graph)
            times[name].append(found["equilibration"] + found["adjoint"])
            iterations[name].append(result.iterations)
    print(f"{options.molecules} molecules, {len(atoms)} atoms, {options.steps} steps")
    warm = options.steps // 4
    for name, title in (("one", "one total charge"), ("each", "the charge of each")):
        rest = 1e3 * np.median(times[name][warm:])
        counts = np.mean(iterations[name][warm:], axis=0)
        print(
            f"{title}: first step {1e3 * times[name][0]:.1f} ms, {iterations[name][0]} iterations; "
            f"later {rest:.1f} ms, {counts[0]:.1f} and {counts[1]:.1f} iterations"
        )
    ratio = [float(np.median(times["each"][part]) / np.median(times["one"][part]))
             for part in (slice(0, 1), slice(warm, None))]  # fmt: skip
    print(f"ratio: first step {ratio[0]:.2f}, later {ratio[1]:.2f}")


if __name__ == "__main__":
    main()
