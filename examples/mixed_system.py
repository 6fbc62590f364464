"""A protonated carbon chain in water: the chain is the model's, the water TIP3P's.

Mechanical embedding through openmm-ml. The water sees fixed charges and Lennard-Jones parameters of
the chain, set by hand below; inside the chain the model alone counts, its charges following the
geometry at every step. Needs pip install openmmml.
"""

from __future__ import annotations

import sys

import ase.io
import numpy as np
from openmm import LangevinMiddleIntegrator, NonbondedForce, System, app, unit
from openmmml import MLPotential

from openmm_nequiplr import NequIPLRCalculator, shipped_structure
from openmm_nequiplr.simulation import current_evaluation

EDGE = 2.4  # nm
LENNARD_JONES = {"C": (0.34, 0.36), "H": (0.26, 0.065)}  # σ in nm, ε in kJ/mol


def water_around(solute: np.ndarray) -> app.Modeller:
    """A box of water with a hole where the solute, shape (N, 3) in nm, is to be."""
    water = app.Modeller(app.Topology(), [] * unit.nanometer)
    field = app.ForceField("amber14/tip3p.xml")
    water.addSolvent(field, model="tip3p", boxSize=unit.Quantity((EDGE,) * 3, unit.nanometer))
    sites = np.array(water.positions.value_in_unit(unit.nanometer))
    apart = sites[:, None] - solute[None]
    apart -= EDGE * np.round(apart / EDGE)
    near = np.linalg.norm(apart, axis=-1).min(axis=1) < 0.25
    water.delete({atom.residue for atom in water.topology.atoms() if near[atom.index]})
    return water


def add_chain(topology: app.Topology, system: System, symbols: list[str], charges: np.ndarray):
    """Append the chain to the force field; return the indices of its atoms."""
    nonbonded = next(f for f in system.getForces() if isinstance(f, NonbondedForce))
    residue = topology.addResidue("CHN", topology.addChain())
    indices = []
    for number, (symbol, charge) in enumerate(zip(symbols, charges, strict=True)):
        element = app.Element.getBySymbol(symbol)
        indices.append(topology.addAtom(f"{symbol}{number}", element, residue).index)
        system.addParticle(element.mass)
        nonbonded.addParticle(charge, *LENNARD_JONES[symbol])
    return indices


def main() -> None:
    chain = ase.io.read(shipped_structure("carbon-chain"))
    chain.calc = NequIPLRCalculator("carbon-chain")
    fixed = chain.get_charges()
    solute = 0.1 * (chain.positions - chain.positions.mean(axis=0)) + 0.5 * EDGE

    water = water_around(solute)
    field = app.ForceField("amber14/tip3p.xml")
    force_field = field.createSystem(
        water.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
    )
    atoms = add_chain(water.topology, force_field, chain.get_chemical_symbols(), fixed)
    positions = np.concatenate((water.positions.value_in_unit(unit.nanometer), solute))

    potential = MLPotential("nequiplr", modelPath="carbon-chain")
    system = potential.createMixedSystem(
        water.topology, force_field, atoms, totalCharge=round(fixed.sum())
    )
    integrator = LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
    )
    simulation = app.Simulation(water.topology, system, integrator)
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    log = {"step": True, "potentialEnergy": True, "temperature": True, "speed": True}
    simulation.reporters.append(app.StateDataReporter(sys.stdout, 20, **log))
    simulation.step(100)

    moving = current_evaluation(simulation.context).charges
    print(f"{system.getNumParticles()} atoms, {len(atoms)} of them the model's")
    print("atom   charge (e) towards the water   within the chain")
    for symbol, index, first, second in zip(chain.symbols, atoms, fixed, moving, strict=True):
        print(f"{symbol}{index:<5d} {first:+27.4f} {second:+18.4f}")


if __name__ == "__main__":
    main()
