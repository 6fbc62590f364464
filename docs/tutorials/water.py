# %% [markdown]
# # A molecule in force-field water
#
# In this tutorial, a model describes a protonated carbon chain and a force field describes the
# surrounding TIP3P water. The embedding is mechanical: the chain and the water interact through
# fixed charges and Lennard-Jones parameters, and the model alone describes the interactions within
# the chain. The equation is in [Mixed ML/MM systems](../guides/mixed.md). The tutorial needs
# openmm-ml (`pip install ".[openmmml]"`).
#
# ## The solute
#
# The fixed charges of the chain, which act on the water, are those of the model for the start
# structure.

# %%
import ase.io
import numpy as np
from openmm import LangevinMiddleIntegrator, NonbondedForce, app, unit
from openmmml import MLPotential

from openmm_nequiplr import NequIPLRCalculator, shipped_structure

edge = 2.2  # nm
chain = ase.io.read(shipped_structure("carbon-chain"))
chain.calc = NequIPLRCalculator("carbon-chain")
fixed = chain.get_charges()
solute = 0.1 * (chain.positions - chain.positions.mean(axis=0)) + 0.5 * edge  # nm
print(chain.get_chemical_formula(), f"with a total charge of {fixed.sum():+.3f} e")

# %% [markdown]
# ## The water
#
# Make a box of water and delete the molecules that overlap with the chain.

# %%
water = app.Modeller(app.Topology(), [] * unit.nanometer)
field = app.ForceField("amber14/tip3p.xml")
water.addSolvent(field, model="tip3p", boxSize=unit.Quantity((edge,) * 3, unit.nanometer))
sites = np.array(water.positions.value_in_unit(unit.nanometer))
apart = sites[:, None] - solute[None]
apart -= edge * np.round(apart / edge)
near = np.linalg.norm(apart, axis=-1).min(axis=1) < 0.25
water.delete({atom.residue for atom in water.topology.atoms() if near[atom.index]})
force_field = field.createSystem(
    water.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
)

# %% [markdown]
# ## The mixed system
#
# Add the chain to the force field with its charges and Lennard-Jones parameters (nm, kJ/mol).
# `createMixedSystem` then replaces the interactions within the chain by the model. The rest is
# ordinary OpenMM code.

# %%
lennard_jones = {"C": (0.34, 0.36), "H": (0.26, 0.065)}
nonbonded = next(f for f in force_field.getForces() if isinstance(f, NonbondedForce))
topology = water.topology
residue = topology.addResidue("CHN", topology.addChain())
atoms = []
for number, symbol in enumerate(chain.symbols):
    element = app.Element.getBySymbol(symbol)
    atoms.append(topology.addAtom(f"{symbol}{number}", element, residue).index)
    force_field.addParticle(element.mass)
    nonbonded.addParticle(fixed[number], *lennard_jones[symbol])
positions = np.concatenate((water.positions.value_in_unit(unit.nanometer), solute))

potential = MLPotential("nequiplr", modelPath="carbon-chain")
system = potential.createMixedSystem(topology, force_field, atoms, totalCharge=1)

integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
integrator.setRandomNumberSeed(1)
simulation = app.Simulation(topology, system, integrator)
simulation.context.setPositions(positions)
simulation.minimizeEnergy(maxIterations=100)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
print(f"{system.getNumParticles()} atoms, {len(atoms)} of them described by the model")

# %% [markdown]
# ## Energies and charges along the run
#
# `current_evaluation` returns the latest result of the model: its energy and the charges of its
# atoms.

# %%
from openmm_nequiplr.simulation import current_evaluation

times, total, inside, charges = [], [], [], []
for _ in range(60):
    simulation.step(5)
    state = simulation.context.getState(energy=True)
    evaluation = current_evaluation(simulation.context)
    times.append(state.getTime().value_in_unit(unit.picosecond))
    total.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / 96.485)
    inside.append(evaluation.energy)
    charges.append(evaluation.charges)
total, inside, charges = np.array(total), np.array(inside), np.array(charges)
print(f"total charge of the chain: {charges.sum(axis=1).min():+.6f} to", end=" ")
print(f"{charges.sum(axis=1).max():+.6f} e")

# %% [markdown]
# After the minimisation, the water and the chain absorb heat from the thermostat. The charges of
# the model fluctuate by some hundredths of an elementary charge as the chain bends and stretches,
# while the charges that act on the water remain fixed.

# %%
from openmm_nequiplr.analysis.figures import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    legend_above,
    new_figure,
    save_figure,
)

axis = np.linalg.svd(chain.positions - chain.positions.mean(axis=0))[2][0]
place = (chain.positions - chain.positions.mean(axis=0)) @ axis
order = np.argsort(place)

figure, (energy, internal, charge) = new_figure(3, 3.7, 3.3)
energy.plot(times, total - total[0], color=BLUE)
energy.set(xlabel="time (ps)", ylabel="change of the total potential energy (eV)")
internal.plot(times, inside - inside[0], color=ORANGE)
internal.set(xlabel="time (ps)", ylabel="change of the chain's own energy (eV)")
extremes = charges.min(axis=0)[order], charges.max(axis=0)[order]
charge.fill_between(place[order], *extremes, color=BLUE, alpha=0.25, lw=0, label="range")
charge.plot(place[order], charges.mean(axis=0)[order], color=BLUE, label="mean")
charge.plot(place[order], fixed[order], "o", color=ORANGE, ms=4, label="seen by the water")
charge.set(xlabel="place along the chain (Å)", ylabel="charge (e)")
legend_above(charge)
save_figure(figure, "mixed_energies_charges.png")

# %% [markdown]
# ![Energies along the run, and charges along the chain](mixed_energies_charges.png)
#
# ## The structure at the end
#
# The figure shows a slice of the box that contains the chain. Oxygen atoms are red, and the atoms
# of the chain are coloured by their charges.

# %%
state = simulation.context.getState(positions=True, enforcePeriodicBox=False)
final = 10 * state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)  # Å
middle = final[atoms].mean(axis=0)
final -= middle
names = np.array([atom.element.symbol for atom in topology.atoms()])
final[: atoms[0]] -= 10 * edge * np.round(final[: atoms[0]] / (10 * edge))

figure, (slab,) = new_figure(1, 6.0, 5.2)
slice_ = np.abs(final[:, 2]) < 3.0
for symbol, colour, size in (("O", RED, 60), ("H", GREY, 18)):
    chosen = slice_ & (names == symbol)
    chosen[atoms] = False
    slab.scatter(*final[chosen, :2].T, s=size, color=colour, alpha=0.45, lw=0)
shown = slab.scatter(*final[atoms, :2].T, s=130, c=charges[-1], cmap="viridis", edgecolor="black")
figure.colorbar(shown, ax=slab, label="charge (e)", shrink=0.8)
slab.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal")
save_figure(figure, "mixed_slice.png")

# %% [markdown]
# ![A slice through the box: the chain and the water around it](mixed_slice.png)
#
# With [electrostatic embedding](../guides/embedding.md), the water polarises the chain.
