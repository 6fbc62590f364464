"""Summary plot of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    legend_above,
    new_figure,
    save_figure,
)
from .reporters import load_charges
from .runfiles import read_log

_GRAM_PER_CM3 = 1.66053906892  # of 1 Da/Å³, CODATA 2022
_MOST_CURVES = 20


def rarest_element(symbols: list[str]) -> str:
    """The element with the fewest atoms; ties are resolved alphabetically."""
    return min(sorted(set(symbols)), key=symbols.count)


def draw_summary(
    log: Path,
    charges: Path,
    symbols: list[str],
    element: str,
    output: Path,
    title: str = "",
    temperature: float | None = None,
    pressure: float | None = None,
    mass: float = 0.0,
) -> None:
    """Plot energy, temperature, charges and, at constant pressure, the volume against time.

    Parameters
    ----------
    log : path
        Log of the run.
    charges : path
        File of the charge reporter; not needed if the log is empty.
    symbols : list of str, length N
    element : str
        The charges of its first 20 atoms are plotted, and the mean over all its atoms.
    output : path
        Image file; the suffix determines the format.
    title : str
    temperature : float, optional, K
        Target of the thermostat, if any.
    pressure : float, optional, bar
        Target of the barostat, if any.
    mass : float, Da
        Total mass, for the density.
    """
    rows = read_log(log)
    panels = 3 if pressure is None else 4
    figure, axes = new_figure(1, 7.0, 2.3 * panels + 0.4, rows=panels, sharex=True)
    time = rows["time_ps"]
    style: dict[str, Any] = {"lw": 1.2, "marker": "." if len(time) < 3 else None}
    energy, heat, charge = axes[0], axes[1], axes[-1]
    for name, label, colour in (("potential_eV", "potential", BLUE), ("total_eV", "total", ORANGE)):
        change = 1000.0 * (rows[name] - rows[name][:1]) / len(symbols)
        energy.plot(time, change, color=colour, label=label, **style)
    energy.set_ylabel("energy change\n(meV/atom)")
    heat.plot(time, rows["temperature_K"], color=PURPLE, label="temperature", **style)
    heat.set_ylabel("temperature\n(K)")
    if temperature is not None:
        heat.axhline(temperature, color=GREY, ls="--", lw=1, label=f"target {temperature:g} K")
    if pressure is not None and len(time):
        axes[2].plot(time, rows["volume_A3"], color=GREEN, label=f"at {pressure:g} bar", **style)
        _volume_labels(axes[2], mass)
    if len(time):
        trajectory = load_charges(charges)
        chosen = trajectory.charges[:, [symbol == element for symbol in symbols]]
        count = chosen.shape[1]
        if count > 1:
            alpha = max(0.3, 1.2 / count)
            shown = chosen[:, :_MOST_CURVES]
            lines = charge.plot(trajectory.times, shown, color=BLUE, alpha=alpha, lw=0.8)
            lines[0].set_label("single atoms" + (" (20 of them)" if count > _MOST_CURVES else ""))
        mean = f"mean of {count} {element}" if count > 1 else element
        charge.plot(trajectory.times, chosen.mean(axis=1), color=BLUE, label=mean, **style)
    charge.set_ylabel(f"charge of {element}\n(e)")
    charge.set_xlabel("time (ps)")
    for axis in axes:
        legend_above(axis)
    figure.align_ylabels(axes)
    figure.suptitle(title)
    save_figure(figure, output)


def _volume_labels(axis: Any, mass: float) -> None:
    """Label an axis with volumes on the left and densities on the right."""

    def inverse(values: Any) -> Any:  # volume to density, and vice versa
        return mass * _GRAM_PER_CM3 / np.maximum(values, 1e-9)

    axis.set_ylabel("volume (Å³)")
    density = axis.secondary_yaxis("right", functions=(inverse, inverse))
    density.set_ylabel("density (g/cm³)")
