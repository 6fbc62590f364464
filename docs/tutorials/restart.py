# %% [markdown]
# # Restart and analysis
#
# In this tutorial, a run of Au₂ on MgO(001) stops half-way and continues. Then its log, its radial
# distribution functions and its charges are analysed.
#
# ## Stop and continue
#
# The first run does 60 steps. The second one continues it with another 60, which is in a shell
#
# ```bash
# nequiplr md au2-mgo --steps 60 --output md --restart
# ```
#
# A third run does 120 steps without a stop, to compare.

# %%
from openmm_nequiplr.simulation.md import MDOptions, continued_options, run_md

common = {"model": "au2-mgo", "temperature": 300, "report_interval": 4, "seed": 1}
run_md(MDOptions(**common, steps=60, output="md"))
run_md(continued_options(restart=True, steps=60, output="md"))
run_md(MDOptions(**common, steps=120, quiet=True, output="md-whole"))

# %% [markdown]
# The log, the trajectory and the charges continue in the same files. The continued run has the same
# trajectory as an uninterrupted run. This also holds with a thermostat, because the checkpoint
# contains the state of the random numbers.

# %%
import numpy as np

from openmm_nequiplr.simulation.runfiles import read_log

log, uninterrupted = read_log("md/log.csv"), read_log("md-whole/log.csv")
difference = np.abs(log["potential_eV"] - uninterrupted["potential_eV"]).max()
print(f"{len(log['step'])} rows; energies differ by {difference:.1e} eV at most")
assert difference < 1e-3

# %% [markdown]
# ## The log
#
# `log.csv` is a plain table, which pandas, a spreadsheet or `read_log` can read. The output
# directory also contains this figure of the run:
#
# ![Energy, temperature and charges of gold along the run](md/summary.png)

# %%
from openmm_nequiplr.analysis.figures import (
    BLUE,
    GREY,
    ORANGE,
    legend_above,
    new_figure,
    save_figure,
)

figure, (axis,) = new_figure(1, 6.4, 3.2)
for rows, label, style in (
    (uninterrupted, "without a stop", {"color": ORANGE, "lw": 5, "alpha": 0.5}),
    (log, "stopped and continued", {"color": BLUE, "lw": 1.2}),
):
    axis.plot(rows["time_ps"], rows["temperature_K"], label=label, **style)
axis.axvline(0.06, color=GREY, ls=":", label="stop")
axis.set(xlabel="time (ps)", ylabel="temperature (K)")
legend_above(axis)
save_figure(figure, "restart.png")

# %% [markdown]
# ![Temperature of the run with and without a stop](restart.png)
#
# ## Radial distributions
#
# The functions accept any trajectory that mdtraj or ASE reads; here it is the output directory of
# the run. The atoms of the crystal vibrate about their sites, so g(r) is a series of peaks, and the
# coordination numbers increase in steps.

# %%
from openmm_nequiplr.analysis import plot_radial_distributions, radial_distributions

distances = radial_distributions("md", r_max=8.0)
plot_radial_distributions(distances, "radial.png")
print(f"a gold atom has {distances.coordination_number('Au', 'O', 2.6):.2f} oxygen atoms", end=" ")
print("within 2.6 Å on average")
print(f"a magnesium atom has {distances.coordination_number('Mg', 'O', 2.6):.2f}")

# %% [markdown]
# ![Radial distribution functions and coordination numbers](radial.png)
#
# ## Charges
#
# The run has recorded its charges. `recompute` computes charges, energies and dipoles for any
# trajectory, also for one of another program without charges.

# %%
from openmm_nequiplr.analysis import (
    charge_distributions,
    plot_charge_distributions,
    plot_properties,
    recompute,
)
from openmm_nequiplr.simulation import load_charges

found = recompute("au2-mgo", "md")
recorded = load_charges("md/charges.npy")
difference = np.abs(found.charges - recorded.charges).max()
print(f"recorded and recomputed charges differ by {difference:.0e} e")
plot_properties(found, "properties.png")
distributions = charge_distributions(found.charges, found.symbols, bins=40)
plot_charge_distributions(distributions, "charges.png")

# %% [markdown]
# ![Energy, mean charges and dipole along the run](properties.png)
#
# ![Histograms of the charges of gold, magnesium and oxygen](charges.png)
#
# The histograms have two peaks, because oxygen and magnesium atoms at the surface differ from those
# inside. In a shell, `nequiplr analyze au2-mgo md` writes all these figures, and tables.
#
# ## In your own script
#
# OpenMM's own checkpoints also work. With the dense solver the force has no hidden state, so
# nothing else needs to be stored.

# %%
from openmm import LangevinMiddleIntegrator, app, unit

from openmm_nequiplr import create_system, shipped_structure
from openmm_nequiplr.simulation import read_structure

start = read_structure(shipped_structure("au2-mgo"))


def make_simulation() -> app.Simulation:
    """All that a script does before its first step."""
    system = create_system(start.topology, "au2-mgo", total_charge=start.total_charge)
    integrator = LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    return app.Simulation(start.topology, system, integrator)


def positions(simulation: app.Simulation) -> np.ndarray:
    """Shape (N, 3), Å."""
    state = simulation.context.getState(positions=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)


simulation = make_simulation()
simulation.context.setPositions(start.positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
simulation.step(20)
simulation.saveCheckpoint("au2-mgo.chk")
simulation.step(20)

continued = make_simulation()
continued.loadCheckpoint("au2-mgo.chk")
continued.step(20)
difference = np.abs(positions(continued) - positions(simulation)).max()
print(f"after step {continued.currentStep} the positions differ by {difference:.0e} Å")
assert difference < 1e-6
