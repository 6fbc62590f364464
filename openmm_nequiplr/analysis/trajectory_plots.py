"""Plots of properties along a trajectory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .charges import ChargeDistributions
from .plots import new_figure
from .properties import TrajectoryProperties
from .radial import RadialDistributions


def plot_properties(properties: TrajectoryProperties, output: str | Path) -> None:
    """Draw the energy, the mean charges of the elements and the dipole along the trajectory.

    Against time where all times are known, else against frame numbers.
    """
    figure, (energy, charge, dipole) = new_figure(3, 3.8, 3.2)
    timed = bool(np.isfinite(properties.times).all())
    x = properties.times if timed else properties.frames
    style = {"marker": "."} if properties.num_frames < 3 else {}
    change = 1000.0 * (properties.energies - properties.energies[0]) / len(properties.symbols)
    energy.plot(x, change, **style)
    names = np.array(properties.symbols)
    for element in sorted(set(properties.symbols)):
        chosen = properties.charges[:, names == element]
        charge.plot(x, chosen.mean(axis=1), label=element, **style)
    dipole.plot(x, properties.dipoles, label=["x", "y", "z"], **style)
    for axis, title in (
        (energy, "energy change, meV/atom"),
        (charge, "mean charge, e"),
        (dipole, "dipole, e Å"),
    ):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("time (ps)" if timed else "frame")
        axis.grid(alpha=0.25)
    for axis in (charge, dipole):
        axis.legend(frameon=False, fontsize=9)
    figure.savefig(output, dpi=130)


def plot_radial_distributions(distributions: RadialDistributions, output: str | Path) -> None:
    """Draw g(r) of every pair of elements where there is one, and coordination numbers."""
    periodic = bool(np.isfinite(distributions.g).any())
    figure, axes = new_figure(2 if periodic else 1, 4.6, 3.6)
    if periodic:
        for first, second in distributions.pairs:
            g = distributions.between(first, second)
            if np.isfinite(g).all():
                axes[0].plot(distributions.r, g, lw=1.1, label=f"{first}–{second}")
        axes[0].axhline(1.0, color="0.7", lw=0.8, zorder=0)
        axes[0].set_ylabel("g(r)")
    for i, center in enumerate(distributions.elements):
        for j, neighbor in enumerate(distributions.elements):
            counts = distributions.coordination[i, j]
            axes[-1].plot(distributions.edges[1:], counts, lw=1.1, label=f"{neighbor} of {center}")
    axes[-1].set_ylabel("neighbours within r")
    axes[-1].set_ylim(0.0, 14.0)
    for axis in axes:
        axis.set_xlabel("r (Å)")
        axis.set_xlim(0.0, distributions.edges[-1])
        axis.legend(frameon=False, fontsize=7, loc="upper left" if axis is axes[-1] else "best")
    figure.savefig(output, dpi=130)


def plot_charge_distributions(distributions: ChargeDistributions, output: str | Path) -> None:
    """Draw the histogram of each element's charges."""
    figure, axes = new_figure(len(distributions.elements), 3.2, 3.0)
    for k, (element, axis) in enumerate(zip(distributions.elements, axes, strict=True)):
        axis.stairs(distributions.density[k], distributions.edges[k], fill=True, color="#1f5fa8")
        axis.axvline(distributions.mean[k], color="#d9731a", lw=1.2)
        mean, deviation = distributions.mean[k], distributions.deviation[k]
        axis.set_title(f"{element}: {mean:+.4f} ± {deviation:.4f} e", fontsize=10)
        axis.set_xlabel("charge (e)")
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_ylabel("density (1/e)")
    figure.savefig(output, dpi=130)
