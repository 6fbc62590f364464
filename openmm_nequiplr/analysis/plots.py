"""Pictures of trainings and evaluations (matplotlib without a display)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#1f5fa8", "#d9731a"
_TITLES = {
    "energy_per_atom_rmse": "energy, meV/atom",
    "forces_rmse": "forces, meV/Å",
    "charges_rmse": "charges, me",
    "dipole_rmse": "dipole, me Å",
    "stress_rmse": "stress, meV/Å³",
}


def new_figure(columns: int, width: float, height: float, rows: int = 1) -> tuple[Figure, list]:
    """A figure that needs no display and no global state, and its axes row by row.

    The width is that of a column, the height that of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def plot_learning_curve(log: str | Path, output: str | Path) -> None:
    """Draw losses and root mean square errors against epochs.

    Parameters
    ----------
    log : path
        ``metrics.csv`` of a training.
    output : path
        The picture.
    """
    with open(log, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = list(rows[0]) if rows else []
    shown = [n for n in _TITLES if f"train_{n}" in names or f"validation_{n}" in names]
    figure, axes = new_figure(1 + len(shown), 3.4, 3.0)
    for axis, name in zip(axes, ["loss", *shown], strict=True):
        for group, colour in (("train", BLUE), ("validation", ORANGE)):
            points = [
                (int(row["epoch"]) + 1, float(row[f"{group}_{name}"]))
                for row in rows
                if row.get(f"{group}_{name}")
            ]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=group)
        axis.set_yscale("log")
        axis.set_xlabel("epoch")
        axis.set_title(_TITLES.get(name, "loss"), fontsize=10)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(output, dpi=130)


def plot_parity(
    values: np.ndarray,
    output: str | Path,
    title: str,
    unit: str,
    error_unit: str | None = None,
    error_scale: float = 1.0,
) -> None:
    """Draw predicted against reference values, and a histogram of the errors.

    Parameters
    ----------
    values : array, shape [2, n]
        Reference and predicted values.
    output : path
        The picture.
    title : str
    unit : str
        Of both axes.
    error_unit : str, optional
        Of the errors; `unit` when not given.
    error_scale : float
        `unit` in terms of `error_unit`.
    """
    reference, predicted = np.asarray(values, dtype=np.float64)
    figure, (left, right) = new_figure(2, 4.0, 3.8)
    ends = [min(reference.min(), predicted.min()), max(reference.max(), predicted.max())]
    left.plot(ends, ends, color="0.6", lw=1)
    left.plot(reference, predicted, ".", ms=4, color=BLUE, alpha=0.5, rasterized=True)
    left.set_aspect("equal", adjustable="datalim")
    left.set_xlabel(f"reference ({unit})")
    left.set_ylabel(f"model ({unit})")
    errors = (predicted - reference) * error_scale
    width = 1.05 * max(float(np.abs(errors).max()), 1e-9)
    bins = int(np.clip(np.sqrt(errors.size), 11, 61)) | 1
    right.hist(errors, bins=bins, range=(-width, width), color=ORANGE)
    right.set_xlabel(f"model − reference ({error_unit or unit})")
    right.set_ylabel("number of values")
    for axis in (left, right):
        axis.locator_params(axis="x", nbins=5)
    figure.suptitle(title, fontsize=11)
    figure.savefig(output, dpi=130)


def plot_spread(
    spread: np.ndarray, error: np.ndarray, output: str | Path, title: str, unit: str
) -> None:
    """Draw the errors of a committee's mean against its spread, both logarithmic.

    Points are single values; the line is the root mean square error of values with a similar
    spread, as many in each bin. Where it follows the diagonal, the spread is the error to expect.

    Parameters
    ----------
    spread, error : array, shape [n]
        Not negative.
    output : path
        The picture.
    title : str
    unit : str
        Of both.
    """
    figure, (axis,) = new_figure(1, 4.2, 4.0)
    good = (spread > 0) & (error > 0)
    spread, error = np.asarray(spread)[good], np.asarray(error)[good]
    if len(spread):
        axis.loglog(spread, error, ".", ms=4, color=BLUE, alpha=0.4, rasterized=True)
        order = np.argsort(spread)
        bins = np.array_split(order, int(np.clip(len(order) // 10, 1, 12)))
        means = np.array(
            [[np.sqrt(np.mean(values[b] ** 2)) for b in bins] for values in (spread, error)]
        )
        axis.loglog(*means, "o-", color=ORANGE, lw=1.5, label="rms of similar spread")
        ends = [min(spread.min(), error.min()), max(spread.max(), error.max())]
        axis.loglog(ends, ends, color="0.6", lw=1, zorder=0)
        axis.legend(frameon=False, fontsize=9)
    axis.set_xlabel(f"spread of the committee ({unit})")
    axis.set_ylabel(f"error of its mean ({unit})")
    axis.set_title(title, fontsize=10)
    figure.savefig(output, dpi=130)
