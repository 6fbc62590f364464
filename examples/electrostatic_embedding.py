"""A dipeptide in water with electrostatic embedding: the charges of model and water interact.

The shipped dipeptide is assigned to the residue templates of a protein force field by its bonds and
solvated in TIP3P water. Then the model replaces the force field of the dipeptide. The charges of
the water are summed over all images (particle mesh Ewald), and the dipole shows how they polarise
the model. Needs openmm-ml (pip install openmmml). ``electrostatic_embedding.py STEPS`` sets the
number of steps.
"""

from __future__ import annotations

import sys

import ase.io
import numpy as np
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from openmm import LangevinMiddleIntegrator, Platform, app, unit
from openmmml import MLPotential

from openmm_nequiplr import NequIPLRCalculator, shipped_structure
from openmm_nequiplr.simulation import current_evaluation


def capped_peptide(atoms) -> tuple[app.Topology, np.ndarray]:
    """Bonds from distances and residues between amide bonds; positions (nm) in their order."""
    cutoffs = natural_cutoffs(atoms, mult=1.15)
    pairs = build_neighbor_list(atoms, cutoffs, self_interaction=False, bothways=True)
    bonded = [pairs.get_neighbors(i)[0].tolist() for i in range(len(atoms))]
    oxygens = [i for i, s in enumerate(atoms.symbols) if s == "O" and len(bonded[i]) == 1]
    carbonyls = {bonded[i][0] for i in oxygens}
    amides = {
        frozenset((i, j))
        for i in carbonyls
        for j in bonded[i]
        if atoms.symbols[j] == "N" and sum(atoms.symbols[k] == "C" for k in bonded[j]) >= 2
    }
    topology, made = app.Topology(), {}
    chain = topology.addChain()
    for start in range(len(atoms)):
        if start in made:
            continue
        residue, waiting = topology.addResidue("X", chain), [start]
        while waiting:
            i = waiting.pop()
            if i in made:
                continue
            symbol = atoms.symbols[i]
            made[i] = topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
            waiting += [j for j in bonded[i] if frozenset((i, j)) not in amides]
    for i in range(len(atoms)):
        for j in bonded[i]:
            if i < j:
                topology.addBond(made[i], made[j])
    return topology, 0.1 * atoms.positions[list(made)]


def mixed_simulation(
    edge: float, integrator, hydrogen_mass: unit.Quantity | None = None, **options
) -> tuple[app.Simulation, list[int]]:
    """The dipeptide in a box of water, edge in nm, and the indices of its atoms."""
    dipeptide = ase.io.read(shipped_structure("dipeptides"))
    topology, positions = capped_peptide(dipeptide)
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    middle = positions - positions.mean(axis=0) + 0.5 * edge
    modeller = app.Modeller(topology, middle * unit.nanometer)
    size = (edge, edge, edge) * unit.nanometer
    modeller.addSolvent(field, model="tip3p", boxSize=size, neutralize=False)
    force_field = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        switchDistance=0.75 * unit.nanometer,
        ewaldErrorTolerance=1e-5,
        hydrogenMass=hydrogen_mass,
    )
    atoms = list(range(len(dipeptide)))
    system = MLPotential("nequiplr-dipeptides").createMixedSystem(
        modeller.topology,
        force_field,
        atoms,
        embedding="electrostatic",
        totalCharge=0,
        **options,
    )
    platform = Platform.getPlatform("CPU")
    simulation = app.Simulation(modeller.topology, system, integrator, platform)
    simulation.context.setPositions(modeller.positions)
    return simulation, atoms


def main(steps: int) -> None:
    integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.0005)
    simulation, atoms = mixed_simulation(2.2, integrator)
    print(f"{len(atoms)} atoms of the model in {simulation.topology.getNumAtoms()}")
    simulation.minimizeEnergy(maxIterations=20)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)
    simulation.step(steps)
    state = simulation.context.getState(positions=True)
    inside = current_evaluation(simulation.context)
    symbols = [atom.element.symbol for atom in list(simulation.topology.atoms())[: len(atoms)]]
    alone = ase.Atoms(symbols, 10.0 * state.getPositions(asNumpy=True)._value[atoms])
    alone.info["total_charge"] = 0
    alone.calc = NequIPLRCalculator("dipeptides")
    shift = np.abs(inside.charges - alone.get_charges()).max()
    print(f"largest change of a charge by the water: {shift:.3f} e")
    for name, dipole in (("alone", alone.get_dipole_moment()), ("in water", inside.dipole)):
        print(f"dipole {name}: {np.linalg.norm(dipole):.2f} e Å")
    print(f"energy of the charges in the potential of the water: {inside.parts['outside']:.3f} eV")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
