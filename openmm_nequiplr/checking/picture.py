"""Figure of a check: charges or forces, minimisations, dynamics, pair scans."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.figures import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    RED,
    legend_beside,
    new_figure,
    save_figure,
)
from ..analysis.minimisation import LARGEST_DROP
from .report import StabilityReport

_MOST_LABELS = 10


def plot_report(report: StabilityReport, output: str | Path) -> None:
    """Draw the four panels of a report; failures are red.

    Parameters
    ----------
    report : StabilityReport
    output : path
        Image file.
    """
    figure, (first, minimisations, dynamics, scans) = new_figure(2, 5.4, 7.2, rows=2)
    if report.reference:
        _charges(first, report)
    else:
        _forces(first, report)
    _minimisations(minimisations, report)
    _dynamics(dynamics, report)
    _scans(scans, report)
    error = 1000.0 * report.forces.largest_error
    lines = textwrap.wrap(f"{Path(report.model).name}: {report.verdict}", 110, max_lines=3)
    lines.append(f"forces within {error:.2g} meV/Å of finite differences")
    figure.suptitle("\n".join(lines))
    save_figure(figure, output)


def _charges(axis: Any, report: StabilityReport) -> None:
    parts = (
        ("known", report.reference, "0.35"),
        ("minimisations", report.seen_charges("minimisations"), ORANGE),
        ("dynamics", report.seen_charges("dynamics"), BLUE),
    )
    elements = list(report.reference)
    for place, element in enumerate(elements):
        low, high = report.allowed[element]
        label = "allowed" if place == 0 else None
        axis.barh(place, high - low, 0.8, left=low, color="0.87", label=label)
        for row, (name, ranges, colour) in enumerate(parts):
            if element in ranges:
                low, high = ranges[element]
                height = place + 0.24 * (1 - row)
                label = name if place == 0 else None
                axis.plot(
                    [low, high], [height, height], "|-", color=colour, lw=3, ms=9, label=label
                )
    axis.set_yticks(range(len(elements)), elements)
    axis.set_xlabel("charge (e)")
    axis.set_title("charges")
    legend_beside(axis)


def _forces(axis: Any, report: StabilityReport) -> None:
    forces, differences = report.forces.forces, report.forces.differences
    if len(forces):
        ends = [differences.min(), differences.max()]
        axis.plot(ends, ends, color=GREY, lw=1)
        axis.plot(differences, forces, "o", ms=5, color=BLUE, alpha=0.6)
    axis.set_xlabel("finite differences (eV/Å)")
    axis.set_ylabel("force (eV/Å)")
    axis.set_title("forces")


def _minimisations(axis: Any, report: StabilityReport) -> None:
    titles = []
    for (displacement, ends), colour in zip(
        report.minimisations.items(), COLOURS * 9, strict=False
    ):
        label: str | None = f"from {displacement:g} Å"
        for end in ends:
            axis.plot(end.energies, color=RED if end.fallen else colour, lw=0.9, label=label)
            label = None
        titles.append(f"{sum(end.fallen for end in ends)} of {len(ends)} from {displacement:g} Å")
    axis.axhline(-LARGEST_DROP, color=RED, lw=1, ls=":")
    axis.set_yscale("symlog", linthresh=0.2)
    axis.set_xlabel("step")
    axis.set_ylabel("energy change (eV/atom)")
    axis.set_title("collapsed minimisations: " + (", ".join(titles) or "none run"))
    _coloured_legend(axis, [f"from {d:g} Å" for d in report.minimisations])


def _dynamics(axis: Any, report: StabilityReport) -> None:
    titles = []
    for (target, runs), colour in zip(report.dynamics.items(), COLOURS * 9, strict=False):
        for run in runs:
            failed = run.failed_at is not None
            axis.plot(run.times, run.temperatures, color=RED if failed else colour, lw=0.9)
            if failed and len(run.times):
                axis.plot(run.times[-1], run.temperatures[-1], "x", color=RED, ms=7)
        axis.axhline(target, color=colour, lw=1, ls=":")
        held = sum(run.failed_at is None for run in runs)
        titles.append(f"{held} of {len(runs)} at {target:g} K")
    if any(
        (run.temperatures > 5.0 * t).any() for t, runs in report.dynamics.items() for run in runs
    ):
        axis.set_yscale("log")
    axis.set_xlabel("time (ps)")
    axis.set_ylabel("temperature (K)")
    axis.set_title("stable runs: " + (", ".join(titles) or "none"))
    _coloured_legend(axis, [f"{t:g} K" for t in report.dynamics])


def _scans(axis: Any, report: StabilityReport) -> None:
    for scan, colour in zip(report.scans, COLOURS * 99, strict=False):
        name = "–".join(scan.pair)
        colour = RED if scan.problem else colour
        label = name if len(report.scans) <= _MOST_LABELS or scan.problem else None
        axis.plot(scan.distances, scan.energies, color=colour, lw=1.1, label=label)
        inside = np.abs(scan.distances - scan.wall) < 0.011
        axis.plot(scan.distances[inside][:1], scan.energies[inside][:1], ".", color=colour)
    axis.set_yscale("symlog", linthresh=1.0)
    axis.set_xlabel("distance (Å)")
    axis.set_ylabel("energy (eV)")
    sound = sum(scan.problem is None for scan in report.scans)
    axis.set_title(f"isolated pairs: {sound} of {len(report.scans)} sound")
    legend_beside(axis)


def _coloured_legend(axis: Any, labels: list[str]) -> None:
    """Add a legend with a line for each curve, and a red one for failures."""
    from matplotlib.lines import Line2D

    colours = [*(COLOURS * 9)[: len(labels)], RED]
    handles = [Line2D([], [], color=colour) for colour in colours]
    legend_beside(axis, handles=handles, labels=[*labels, "failed"])
