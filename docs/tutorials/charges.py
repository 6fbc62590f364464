# %% [markdown]
# # Charges along a trajectory
#
# The charges of NequIP-LR respond to the geometry at every step. This tutorial analyses them in a
# protonated carbon chain, C₁₀H₃⁺, that vibrates in vacuum: their distribution along the chain,
# their fluctuations, and the dipole.
#
# ## A run at constant energy
#
# The run uses the Verlet integrator without a thermostat. The forces include the response of the
# charges, so the total energy is conserved. In a shell:
#
# ```bash
# nequiplr md carbon-chain --ensemble nve --temperature 600 --timestep 0.5 --steps 800 \
#     --report-interval 2 --output md
# ```

# %%
import numpy as np

from openmm_nequiplr.simulation.md import MDOptions, run_md
from openmm_nequiplr.simulation.runfiles import read_log

options = MDOptions(
    model="carbon-chain",
    ensemble="nve",
    temperature=600,  # of the initial velocities; half of it becomes potential energy
    timestep=0.5,
    steps=800,
    report_interval=2,
    seed=2,
    output="md",
)
run_md(options)
log = read_log("md/log.csv")
swing, drift = (1000 * np.std(log[name]) for name in ("potential_eV", "total_eV"))
print(f"potential energy ± {swing:.1f} meV, total energy ± {drift:.2f} meV")

# %% [markdown]
# ## The charges
#
# `md/charges.npy` contains the charges and the dipole of every reported frame. `open_trajectory`
# reads the positions.

# %%
import ase.io

from openmm_nequiplr.analysis import open_trajectory
from openmm_nequiplr.simulation import load_charges

found = load_charges("md/charges.npy")
print("charges:", found.charges.shape, "dipoles:", found.dipoles.shape)
print(f"total charge {found.charges.sum(axis=1).min():+.6f} to", end=" ")
print(f"{found.charges.sum(axis=1).max():+.6f} e")

positions = np.array([frame.positions for frame in open_trajectory("md").frames()])  # Å
final = ase.io.read("md/final.extxyz")
masses, symbols = final.get_masses(), np.array(final.get_chemical_symbols())
centre = np.einsum("fnd,n->fd", positions, masses) / masses.sum()
axis = np.linalg.svd(positions[0] - centre[0])[2][0]
place = (positions[0] - centre[0]) @ axis
if (symbols[np.argsort(place)[:2]] == "H").all():  # the protonated end to the right
    place = -place
order = np.argsort(place)

# %% [markdown]
# The left panel shows the mean and the range of each charge along the chain. The right panel shows
# the deviation of each charge from its mean. The charges oscillate with the vibrations, most
# rapidly near the protonated end, where bonds to hydrogen atoms stretch and bend.

# %%
from openmm_nequiplr.analysis.figures import (
    BLUE,
    ORANGE,
    legend_above,
    new_figure,
    save_figure,
)

deviation = 1000 * (found.charges - found.charges.mean(axis=0))[:, order]
figure, (mean, moving) = new_figure(2, 5.0, 3.8)
extremes = found.charges.min(axis=0)[order], found.charges.max(axis=0)[order]
mean.fill_between(place[order], *extremes, color=BLUE, alpha=0.25, lw=0, label="range")
mean.plot(place[order], found.charges.mean(axis=0)[order], "o-", ms=4, color=BLUE, label="mean")
for x, y, symbol in zip(place[order], extremes[1], symbols[order], strict=True):
    mean.annotate(symbol, (x, y), (0, 3), textcoords="offset points", ha="center", fontsize=8)
mean.set(xlabel="place along the chain (Å)", ylabel="charge (e)")
legend_above(mean)
limit = np.percentile(np.abs(deviation), 99)
image = moving.pcolormesh(
    found.times,
    np.arange(len(order)),
    deviation.T,
    cmap="RdBu_r",
    vmin=-limit,
    vmax=limit,
    rasterized=True,
)
moving.set_yticks(np.arange(len(order)), symbols[order])
moving.set(xlabel="time (ps)", ylabel="atom, from end to end", xlim=(0, 0.4))
moving.grid(False)
figure.colorbar(image, ax=moving, label="charge − mean (me)")
save_figure(figure, "charges.png")

# %% [markdown]
# ![Mean charges along the chain, and their deviations against time](charges.png)
#
# ## The dipole
#
# The dipole of a charged molecule depends on the origin. It is therefore computed relative to the
# centre of mass, $\mu = \sum_i q_i (r_i - r_\mathrm{com})$, and projected on the axis of the chain,
# which rotates with the molecule. For the dotted curve, the charges are fixed at their means. An
# infrared spectrum is determined by the rate of change of the dipole. This is where the
# fluctuations of the charges matter most ([Response and spectra](../guides/response.md)).

# %%
carbons = order[symbols[order] == "C"]
axes = positions[:, carbons[-1]] - positions[:, carbons[0]]
axes /= np.linalg.norm(axes, axis=1)[:, None]
along = np.einsum("fnd,fd->fn", positions - centre[:, None], axes)  # Å
dipole = (found.charges * along).sum(axis=1)
frozen = (found.charges.mean(axis=0) * along).sum(axis=1)
rates = [np.std(np.gradient(values, found.times)) for values in (dipole, frozen)]
print(f"rate of change: {rates[0]:.1f} e Å/ps, with frozen charges {rates[1]:.1f} e Å/ps")

figure, (energy, moment) = new_figure(1, 8.0, 5.4, rows=2, sharex=True)
for name, label, colour in (("potential_eV", "potential", BLUE), ("total_eV", "total", ORANGE)):
    change = 1000 * (log[name] - log[name].mean())
    energy.plot(log["time_ps"], change, lw=1.2, color=colour, label=label)
energy.set_ylabel("energy − mean (meV)")
moment.plot(found.times, dipole, lw=1.2, color=BLUE, label="charges of the model")
moment.plot(
    found.times, frozen, lw=1.2, ls=":", color=ORANGE, label="charges frozen at their means"
)
moment.set(xlabel="time (ps)", ylabel="dipole along the chain (e Å)", xlim=(0, 0.4))
legend_above(energy)
legend_above(moment)
save_figure(figure, "dipole.png")

# %% [markdown]
# ![Energies at constant energy; dipole with moving and with frozen charges](dipole.png)
#
# For a trajectory that was stored without charges, `nequiplr analyze` and `recompute` compute them
# afterwards; see [Charges along a trajectory](../guides/charges.md).
