# %% [markdown]
# # A committee: find failures and correct them
#
# Models that differ only in their random seed agree where the data determine them, and disagree
# elsewhere. This tutorial trains such a committee on structures from dynamics at 300 K and runs it
# at 600 K. It collects the structures on which the members disagree, labels them and trains again.
# As in [Your own data](own_data.md), the model `carbon-chain` replaces the reference method.

# %%
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.analysis import open_trajectory
from openmm_nequiplr.simulation.md import MDOptions, run_md

reference = NequIPLRCalculator("carbon-chain")  # your DFT calculator


def label(symbols, positions: np.ndarray) -> Atoms:
    """A structure with energy, forces and charges of the reference method."""
    atoms = Atoms(symbols, positions, info={"total_charge": 1.0})
    atoms.calc = reference
    labels = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "charges": atoms.get_charges(),
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def sample(temperature: float, count: int) -> list[Atoms]:
    """Labelled structures from dynamics of the reference method, 20 fs apart."""
    options = MDOptions(
        model="carbon-chain",
        temperature=temperature,
        friction=10,
        steps=20 * count,
        report_interval=20,
        seed=1,
        quiet=True,
        output=f"reference-{temperature}",
    )
    trajectory = open_trajectory(run_md(options).files.directory)
    return [label(trajectory.symbols, frame.positions) for frame in trajectory.frames()]


cold, hot = sample(300, 30), sample(600, 15)
ase.io.write("first.extxyz", cold)
ase.io.write("hot.extxyz", hot)  # only for the test
print(f"{len(cold)} structures at 300 K for training, {len(hot)} at 600 K for the test")

# %% [markdown]
# ## The first committee
#
# Three small models are trained on the structures at 300 K. In a shell:
#
# ```bash
# nequiplr train committee.yaml --seeds 3
# ```

# %%
from pathlib import Path

from openmm_nequiplr.training.committee import train_committee

Path("committee.yaml").write_text("""\
output: first
data: {train: first.extxyz, num_validation: 5}
model:
  r_max: 4.0
  num_layers: 1
  num_layers_charge: 1
  shared_features: true
  num_features: 8
  invariant_neurons: 16
equilibration: {fit_electronegativity: true, charge_epochs: 5}
loss: {energy_per_atom: 50, forces: 1, charges: 100}
optimizer: {lr: 0.02}
batch_size: 2
max_epochs: 25
""")
first = train_committee("committee.yaml", seeds=[0, 1, 2], progress=False)

# %% [markdown]
# ## Disagreement in dynamics
#
# The first member drives a run at 600 K. At every report, the other members are evaluated at the
# same structure. If the standard deviation of any force exceeds 0.8 eV/Å, the structure is written
# to `uncertain.extxyz`. With `on_unstable="warn"` the run continues where it would otherwise stop,
# because we want to find failures. In a shell:
#
# ```bash
# nequiplr md first/seed_0/model.safetensors first.extxyz --committee first \
#     --spread-threshold 0.8 --temperature 600 --on-unstable warn --output md-first
# ```

# %%
from openmm_nequiplr.simulation.committee import load_spread

threshold = 0.8  # eV/Å


def explore(committee: str, output: str) -> np.ndarray:
    """Time (ps) and largest standard deviation of a force (eV/Å) along a run at 600 K."""
    options = MDOptions(
        model=f"{committee}/seed_0/model.safetensors",
        structure="first.extxyz",
        committee=(committee,),
        spread_threshold=threshold,
        temperature=600,
        timestep=0.5,
        friction=5,
        steps=500,
        report_interval=5,
        on_unstable="warn",
        seed=1,
        quiet=True,
        output=output,
    )
    files = run_md(options).files
    spread = load_spread(files.spread)
    return np.array([spread.times, spread.forces.max(axis=1)])


before = explore("first", "md-first")
uncertain = ase.io.read("md-first/uncertain.extxyz", ":")
print(f"{len(uncertain)} of {before.shape[1]} structures exceed {threshold} eV/Å")

# %% [markdown]
# ## Select, label, train again
#
# Structures with a spread of more than 3 eV/Å have left chemistry and teach little about the
# molecule. Of the others, thirty are enough, evenly spaced along the run, because neighbouring
# frames are alike. They are labelled and added to the data, and a second committee is trained with
# the same settings.

# %%
usable = [atoms for atoms in uncertain if atoms.info["largest_force_spread"] < 3]
spaced = np.linspace(0, len(usable) - 1, min(30, len(usable))).round().astype(int)
chosen = [label(usable[k].symbols, usable[k].positions) for k in spaced]
print(f"{len(chosen)} structures are labelled")
ase.io.write("second.extxyz", cold + chosen)
changes = {"output": "second", "data.train": "second.extxyz"}
second = train_committee("committee.yaml", seeds=[0, 1, 2], overrides=changes, progress=False)
after = explore("second", "md-second")
print(f"now {np.mean(after[1] > threshold):.0%} of the structures, before", end=" ")
print(f"{np.mean(before[1] > threshold):.0%}")

# %% [markdown]
# ## What it was worth
#
# The test set consists of structures from dynamics of the reference method at 600 K, which were not
# used by either committee. `evaluate_committee` (in a shell `nequiplr evaluate first hot.extxyz`)
# also reports how well the spread correlates with the error. A committee estimates the error only
# to the extent of this correlation.

# %%
from openmm_nequiplr.training.spread import evaluate_committee

errors = {}
for name in ("first", "second"):
    metrics = evaluate_committee([name], "hot.extxyz", f"{name}-hot", verbose=False)
    errors[name] = {k: v.rmse for k, v in metrics.mean.quantities().items()}
    line = ", ".join(f"{k} {v:.1f}" for k, v in errors[name].items())
    print(f"{name}: RMSE of {line} (meV, meV/Å, me)")
assert errors["second"]["forces"] < errors["first"]["forces"]

# %%
from openmm_nequiplr.analysis.figures import (
    BLUE,
    GREY,
    ORANGE,
    legend_above,
    log_scale,
    new_figure,
    save_figure,
)

figure, (left, right) = new_figure(2, 4.6, 3.4)
for (times, spread), name, colour in ((before, "first", ORANGE), (after, "second", BLUE)):
    left.plot(times, spread, color=colour, label=f"{name} committee")
left.axhline(threshold, color=GREY, ls="--", lw=1, label="threshold")
left.set(xlabel="time at 600 K (ps)", ylabel="largest spread of a force (eV/Å)")
log_scale(left, np.concatenate([before[1], after[1]]))
names = {
    "energy_per_atom": "energy\n(meV/atom)",
    "forces": "forces\n(meV/Å)",
    "charges": "charges\n(me)",
}
place = np.arange(len(names))
for shift, name, colour in ((-0.2, "first", ORANGE), (0.2, "second", BLUE)):
    bars = right.bar(place + shift, [errors[name][k] for k in names], 0.38, color=colour)
    right.bar_label(bars, fmt="%.3g", fontsize=8)
right.set_xticks(place, names.values())
right.set_ylabel("RMSE at 600 K")
log_scale(right, np.array([errors["first"][k] for k in names]))
legend_above(left)
save_figure(figure, "committee.png")

# %% [markdown]
# ![Spread along the runs of both committees, and their errors at 600 K](committee.png)
#
# The errors of the first committee as a function of its spread, at 600 K:
#
# ![Errors of the forces against the spread of the committee](first-hot/spread_forces.png)
#
# These errors are larger than the spread and correlate with it only weakly. With three small
# models, the spread is a warning, not an error bar, but it was sufficient to select structures.
#
# One round corrects the failures that one run has found. In practice, repeat the loop until runs of
# the length that you need stay below the threshold. See also the guide on
# [committees](../guides/committees.md).
