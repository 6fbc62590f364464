"""An ionic melt between two electrodes at a switched voltage: charge, capacitance, closed form.

The model is untrained. It has charges but no short-range energy; soft spheres replace it. The
charge of every ion is constrained, so that charge flows only between the electrodes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from ase import Atoms
from openmm import CustomNonbondedForce, LangevinMiddleIntegrator, Platform, app, unit

from openmm_nequiplr import ModelConfig, NequIPLRCalculator, NequIPLRPotential, create_system
from openmm_nequiplr.simulation import current_evaluation, from_atoms
from openmm_nequiplr.units import COULOMB_CONSTANT

SIDE, SPACING, GAP, WIDTH = 5, 2.9, 14.0, 0.7  # atoms, Å, Å, Å
AREA, TEMPERATURE = (SIDE * SPACING) ** 2, 1500.0  # Å², K
RADII = {"Au": 0.30, "Na": 0.22, "Cl": 0.26}  # nm
FIRST, SECOND = range(SIDE**2), range(SIDE**2, 2 * SIDE**2)


def untrained() -> NequIPLRPotential:
    """A model with the widths and hardnesses of the elements and without short-range energy."""
    torch.manual_seed(0)
    sizes = {"num_layers": 0, "num_layers_charge": 0, "l_max": 0, "num_features": 4}
    widths = (WIDTH, 0.8, 0.9)
    config = ModelConfig(tuple(RADII), 4.0, gaussian_widths=widths, avg_num_neighbors=8.0, **sizes)
    model = NequIPLRPotential(config).double()
    for parameter in model.energy_stage.parameters():
        parameter.data.zero_()
    return model


def closed_form(hardness: float) -> float:
    """Capacitance (e/V) of two square lattices of Gaussian charges.

    Their potential differs from that of two sheets by the self-energy, the Madelung sum of a square
    lattice of points in their neutralising sheet (3.900265/a), and the overlap of neighbours.
    """
    index = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 2), -1).reshape(-1, 2)
    far = SPACING * np.linalg.norm(index[index.any(axis=1)], axis=1)
    overlap = sum(math.erfc(r / (2.0 * WIDTH)) / r for r in far)
    site = 1.0 / (math.sqrt(math.pi) * WIDTH) - 3.900265 / SPACING - overlap
    sheets = 4.0 * math.pi * COULOMB_CONSTANT * GAP / SPACING**2
    return SIDE**2 / (sheets + 2.0 * (hardness + COULOMB_CONSTANT * site))


def capacitor(ions: int) -> Atoms:
    """Two layers of gold with vacuum outside, and ions on a grid between them."""
    layer = SPACING * np.array([[i, j, 0.0] for i in range(SIDE) for j in range(SIDE)])
    size, normal = SIDE * SPACING, np.array([0.0, 0.0, GAP])
    grid = np.indices((4, 4, 3)).reshape(3, -1).T * [size / 4, size / 4, GAP / 4] + normal / 4
    between = np.random.default_rng(0).permutation(grid)[:ions]
    symbols = f"Au{2 * SIDE**2}" + (f"Na{ions // 2}Cl{ions // 2}" if ions else "")
    atoms = Atoms(symbols, np.vstack([layer, layer + normal, between]))
    atoms.set_cell([size, size, 2.5 * GAP])
    atoms.pbc = (True, True, False)
    atoms.info["total_charge"] = 0
    return atoms


def spheres(atoms: Atoms) -> CustomNonbondedForce:
    """Repulsion between all atoms that move and all others."""
    force = CustomNonbondedForce("4*((r1+r2)/2/r)^12")
    force.setNonbondedMethod(CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    force.addPerParticleParameter("r")
    for symbol in atoms.symbols:
        force.addParticle([RADII[symbol]])
    gold = atoms.symbols == "Au"
    force.addInteractionGroup(np.flatnonzero(~gold), range(len(atoms)))
    return force


def main() -> None:
    model = untrained()
    empty = capacitor(0)
    empty.calc = NequIPLRCalculator(model, electrodes=(FIRST, SECOND), electrode_voltage=1.0)
    charge = empty.get_charges()[FIRST].sum()
    hardness = float(model.hardness(torch.tensor(0)).detach())
    print(f"capacitance of the empty capacitor {charge:.5f} e/V, closed form ", end="")
    print(f"{closed_form(hardness):.5f} e/V, two sheets ", end="")
    print(f"{AREA / (4.0 * math.pi * COULOMB_CONSTANT * GAP):.5f} e/V")

    atoms = capacitor(32)
    start = from_atoms(atoms)
    masses = np.where(atoms.symbols == "Au", 0.0, atoms.get_masses())
    system = create_system(
        start.topology,
        model,
        masses=masses,
        slab=start.slab,
        electrodes=(FIRST, SECOND),
        electrode_voltage=0.0,
        charge_groups=range(len(atoms)),
        group_charges={"Na": 1, "Cl": -1},
    )
    system.addForce(spheres(atoms))
    integrator = LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 5 / unit.picosecond, 0.002)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(start.topology, system, integrator, Platform.getPlatform("CPU"))
    simulation.context.setPositions(start.positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 1)
    print("voltage (V)   time (ps)   charge of the first electrode (e)")
    means = {}
    for voltage in (0.0, 4.0, 0.0):
        simulation.context.setParameter("electrode_voltage", voltage)
        charges = []
        for _ in range(3):
            for _ in range(8):
                simulation.step(5)
                charges.append(current_evaluation(simulation.context).charges[FIRST].sum())
            time = simulation.context.getTime().value_in_unit(unit.picosecond)
            print(f"{voltage:11.1f} {time:11.2f} {np.mean(charges[-8:]):+12.3f}")
        means[voltage] = np.mean(charges[8:])
    found = (means[4.0] - means[0.0]) / 4.0
    print(f"capacitance with the melt about {found:.3f} e/V")


if __name__ == "__main__":
    main()
