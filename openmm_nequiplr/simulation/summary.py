"""One picture of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .reporters import load_charges
from .runfiles import read_log


def rarest_element(symbols: list[str]) -> str:
    """The element with the fewest atoms (of several, the first in the alphabet)."""
    return min(sorted(set(symbols)), key=symbols.count)


def draw_summary(
    log: Path, charges: Path, symbols: list[str], element: str, output: Path, title: str = ""
) -> None:
    """Draw energy, temperature and a charge against time.

    Parameters
    ----------
    log : path
        Log of the run.
    charges : path
        File of the charge reporter; not needed if the log is empty.
    symbols : list of str, length N
    element : str
        The charges of its first 20 atoms are drawn, and the mean of all.
    output : path
        Picture file; the suffix chooses the format.
    title : str
    """
    from matplotlib.figure import Figure

    rows = read_log(log)
    figure = Figure(figsize=(7.0, 7.5), layout="constrained")
    energy, temperature, charge = figure.subplots(3, 1, sharex=True)
    time = rows["time_ps"]
    style = {"marker": "."} if len(time) < 3 else {}
    if len(time):
        count = len(symbols)
        for name, label in (("potential_eV", "potential"), ("total_eV", "total")):
            change = 1000.0 * (rows[name] - rows[name][0]) / count
            energy.plot(time, change, label=label, **style)
        energy.legend(loc="best")
        temperature.plot(time, rows["temperature_K"], color="C3", **style)
        trajectory = load_charges(charges)
        chosen = trajectory.charges[:, [symbol == element for symbol in symbols]]
        mean = np.mean(chosen, axis=1)
        charge.plot(trajectory.times, chosen[:, :20], color="C0", alpha=0.3, linewidth=0.8)
        charge.plot(trajectory.times, mean, color="C0", label=f"mean of {element}", **style)
        charge.legend(loc="best")
    energy.set_ylabel("energy change / meV per atom")
    temperature.set_ylabel("temperature / K")
    charge.set_ylabel(f"charge of {element} / e")
    charge.set_xlabel("time / ps")
    energy.set_title(title)
    figure.savefig(output, dpi=150)
