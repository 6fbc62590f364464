# %% [markdown]
# # Your own data to dynamics in ten minutes
#
# This tutorial shows all steps: structures with reference energies and forces, the training, the
# errors, a check of the model, and molecular dynamics. It needs no download and no reference
# program, because the shipped model `carbon-chain` replaces the reference program. With your own
# data, everything from step 2 on is the same.
#
# ## 1. Data
#
# A protonated carbon chain, C₁₀H₃⁺, is simulated at 400 K, and every tenth structure is labelled.
# To obtain DFT labels, replace `NequIPLRCalculator("carbon-chain")` by a DFT calculator of ASE.
# Store the total charge in `atoms.info["total_charge"]`.

# %%
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.analysis import open_trajectory
from openmm_nequiplr.simulation.md import MDOptions, run_md

options = MDOptions(
    model="carbon-chain", temperature=400, steps=1000, seed=1, quiet=True, output="reference"
)
run_md(options)

trajectory = open_trajectory("reference")
reference = NequIPLRCalculator("carbon-chain")  # your DFT calculator
frames = []
for frame in trajectory.frames():
    atoms = Atoms(trajectory.symbols, frame.positions, info={"total_charge": 1.0})
    atoms.calc = reference
    labels = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "charges": atoms.get_charges(),
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    frames.append(atoms)
ase.io.write("chain.extxyz", frames)
print(len(frames), "structures of", frames[0].get_chemical_formula())

# %% [markdown]
# ## 2. Training
#
# The configuration is a short YAML file; all other keys have defaults
# ([reference](../reference/training-file.md)). Ten structures are used for validation, which
# determines the epoch whose model is kept, and ten for the test. In a shell the command is
# `nequiplr train chain.yaml`.

# %%
from pathlib import Path

from openmm_nequiplr.training.run import train

Path("chain.yaml").write_text("""\
output: chain
data: {train: chain.extxyz, num_validation: 10, num_test: 10}
model:
  r_max: 4.0                  # Å
  num_layers: 1               # before the charges
  num_layers_charge: 1        # after the charges
  shared_features: true
  num_features: 16
  invariant_neurons: 32
equilibration: {fit_electronegativity: true, charge_epochs: 10}
loss: {energy_per_atom: 100, forces: 1, charges: 300}
optimizer: {lr: 0.01}
batch_size: 2
max_epochs: 30
""")
result = train("chain.yaml")

# %% [markdown]
# ![Learning curves: loss and errors against epochs](chain/learning_curve.png)
#
# ## 3. Errors
#
# The parity plots show the ten test structures, which were not used in the training. Points on the
# diagonal have no error; the histogram shows the distribution of the errors.
#
# ![Forces of the model against the reference](chain/test/parity_forces.png)
#
# ![Charges of the model against the reference](chain/test/parity_charges.png)
#
# ## 4. Is it fit for dynamics?
#
# Small errors on the test set are not sufficient: dynamics finds every hole in the potential energy
# surface of a model. The check compares forces with finite differences, minimises displaced
# structures, runs short dynamics and scans pairs of atoms. `nequiplr train` ends with a quick
# check, and `nequiplr check` performs the full check.

# %%
from openmm_nequiplr.checking import check_file

report = check_file("chain/model.safetensors", "chain.extxyz", quick=True, output="chain")
print(report.verdict)

# %% [markdown]
# ![Charges, minimisations, dynamics and pair scans of the check](chain/check.png)
#
# ## 5. Dynamics
#
# The model runs in OpenMM for 0.3 ps at 300 K, from the last structure of the file. In a shell:
#
# ```bash
# nequiplr md chain/model.safetensors chain.extxyz --steps 600 --timestep 0.5 --output md
# ```

# %%
options = MDOptions(
    model="chain/model.safetensors",
    structure="chain.extxyz",
    steps=600,
    timestep=0.5,  # fs, because of the hydrogen
    temperature=300,
    seed=1,
    output="md",
)
run_md(options)

# %% [markdown]
# ![Energy, temperature and charges of hydrogen along the run](md/summary.png)
#
# ## 6. Errors where they count
#
# The test structures come from dynamics of the reference. Structures from dynamics of the model are
# a harder test. The figure shows the energy of the reference along the trajectory of the model. The
# errors are larger than in the test set, because a run drifts to structures where the energy of the
# model is too low.

# %%
from openmm_nequiplr.analysis import recompute
from openmm_nequiplr.analysis.figures import BLUE, ORANGE, legend_above, new_figure, save_figure

reference = recompute("carbon-chain", "md", forces=True)
model = recompute("chain/model.safetensors", "md", forces=True)

figure, (energy, force) = new_figure(2, 4.4, 3.4)
for found, label, colour in ((reference, "reference", ORANGE), (model, "model", BLUE)):
    energy.plot(found.times, found.energies - reference.energies[0], color=colour, label=label)
energy.set(xlabel="time (ps)", ylabel="potential energy (eV)")
legend_above(energy)
errors = 1000 * np.sqrt(np.mean((model.forces - reference.forces) ** 2, axis=(1, 2)))
force.plot(model.times, errors, color=BLUE)
force.set(xlabel="time (ps)", ylabel="RMS error of the forces (meV/Å)", ylim=(0, None))
save_figure(figure, "along_the_run.png")
print(f"forces on the way: {np.sqrt(np.mean(errors**2)):.0f} meV/Å RMS error")

# %% [markdown]
# ![Energies and errors of the forces along the run](along_the_run.png)
#
# If these errors grow along a run, the run visits structures that the training data lack. The
# [committee tutorial](committee.md) shows how to find and add such structures. [Train your own
# model](../guides/train.md) explains the options of a training.
