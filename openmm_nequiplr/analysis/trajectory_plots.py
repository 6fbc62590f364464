"""Plots of properties along a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .charges import ChargeDistributions
from .figures import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    legend_above,
    legend_beside,
    new_figure,
    save_figure,
)
from .properties import TrajectoryProperties
from .radial import RadialDistributions


def plot_properties(properties: TrajectoryProperties, output: str | Path) -> None:
    """Plot energy, mean charges of the elements and dipole along the trajectory.

    The abscissa is time if all times are known, otherwise the frame number.
    """
    figure, (energy, charge, dipole) = new_figure(3, 3.8, 3.2)
    timed = bool(np.isfinite(properties.times).all())
    x = properties.times if timed else properties.frames
    style: dict[str, Any] = {"lw": 1.2, "marker": "." if properties.num_frames < 3 else None}
    change = 1000.0 * (properties.energies - properties.energies[0]) / len(properties.symbols)
    energy.plot(x, change, **style)
    names = np.array(properties.symbols)
    for element in sorted(set(properties.symbols)):
        chosen = properties.charges[:, names == element]
        charge.plot(x, chosen.mean(axis=1), label=element, **style)
    dipole.plot(x, properties.dipoles, label=["x", "y", "z"], **style)
    for axis, label in (
        (energy, "energy change (meV/atom)"),
        (charge, "mean charge (e)"),
        (dipole, "dipole (e Å)"),
    ):
        axis.set_ylabel(label)
        axis.set_xlabel("time (ps)" if timed else "frame")
    for axis in (charge, dipole):
        legend_above(axis, columns=6)
    save_figure(figure, output)


def plot_radial_distributions(distributions: RadialDistributions, output: str | Path) -> None:
    """Plot g(r) of each pair of elements (if periodic) and coordination numbers."""
    periodic = bool(np.isfinite(distributions.g).any())
    figure, axes = new_figure(2 if periodic else 1, 5.2, 3.6)
    colours = dict(zip(distributions.pairs, COLOURS * len(distributions.pairs), strict=False))
    if periodic:
        peaks = []
        for first, second in distributions.pairs:
            g = distributions.between(first, second)
            if np.isfinite(g).all():
                colour = colours[first, second]
                axes[0].plot(distributions.r, g, lw=1.2, color=colour, label=f"{first}–{second}")
                peaks.append(float(g.max()))
        axes[0].axhline(1.0, color=GREY, lw=0.8, zorder=0)
        axes[0].set_ylabel("g(r)")
        axes[0].set_ylim(0.0, _highest(peaks))
    for i, center in enumerate(distributions.elements):
        for j, neighbor in enumerate(distributions.elements):
            counts = distributions.coordination[i, j]
            axes[-1].plot(
                distributions.edges[1:],
                counts,
                ls="--" if j < i else "-",
                color=colours[min(center, neighbor), max(center, neighbor)],
                lw=1.2,
                label=f"{neighbor} around {center}",
            )
    axes[-1].set_ylabel("neighbours within r")
    axes[-1].set_ylim(0.0, 14.0)
    for axis in axes:
        axis.set_xlabel("r (Å)")
        axis.set_xlim(0.0, distributions.edges[-1])
        legend_beside(axis)
    save_figure(figure, output)


def _highest(peaks: list[float]) -> float:
    """Upper limit of the axis; a single very high peak must not flatten all other curves."""
    *others, highest = sorted([1.0, *peaks])
    return 1.05 * min(highest, 2.0 * others[-1]) if len(others) > 1 else 1.05 * highest


def plot_charge_distributions(distributions: ChargeDistributions, output: str | Path) -> None:
    """Plot the distribution of the charges of each element."""
    figure, axes = new_figure(len(distributions.elements), 3.2, 3.0)
    for k, (element, axis) in enumerate(zip(distributions.elements, axes, strict=True)):
        axis.stairs(distributions.density[k], distributions.edges[k], fill=True, color=BLUE)
        axis.axvline(distributions.mean[k], color=ORANGE, lw=1.2)
        mean, deviation = distributions.mean[k], distributions.deviation[k]
        axis.set_title(f"{element}: {mean:+.3f} ± {deviation:.3f} e")
        axis.set_xlabel("charge (e)")
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_ylabel("density (1/e)")
    save_figure(figure, output)
