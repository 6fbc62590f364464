"""Plots of trainings and evaluations (matplotlib without a display)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from .figures import BLUE, GREY, ORANGE, legend_above, log_scale, new_figure, save_figure

_LABELS = {
    "loss": "loss",
    "energy_per_atom_rmse": "energy RMSE (meV/atom)",
    "forces_rmse": "forces RMSE (meV/Å)",
    "charges_rmse": "charges RMSE (me)",
    "dipole_rmse": "dipole RMSE (me Å)",
    "stress_rmse": "stress RMSE (meV/Å³)",
    "born_charges_rmse": "Born charges RMSE (me)",
    "polarizability_rmse": "polarisability RMSE (me Å²/V)",
}
_GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "train": ("training", {"color": BLUE, "lw": 1.0, "ls": "--", "alpha": 0.8}),
    "validation": ("validation", {"color": ORANGE, "lw": 1.6}),
}


def plot_learning_curve(log: str | Path, output: str | Path) -> None:
    """Plot losses and root mean square errors against epochs.

    A dotted line marks the epoch of the lowest validation loss, whose model is saved.

    Parameters
    ----------
    log : path
        ``metrics.csv`` of a training.
    output : path
        Image file.
    """
    with open(log, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = list(rows[0]) if rows else []
    shown = [n for n in _LABELS if f"train_{n}" in names or f"validation_{n}" in names] or ["loss"]
    figure, axes = new_figure(len(shown), 3.4, 3.2)
    curves = {
        (group, name): np.array(
            [
                (int(row["epoch"]) + 1, float(row[f"{group}_{name}"]))
                for row in rows
                if row.get(f"{group}_{name}")
            ]
        ).reshape(-1, 2)
        for group in _GROUPS
        for name in shown
    }
    judged = curves.get(("validation", "loss"), np.empty((0, 2)))
    for axis, name in zip(axes, shown, strict=True):
        for group, (label, style) in _GROUPS.items():
            points = curves[group, name]
            marker = "." if len(points) < 3 else None
            axis.plot(*points.T, label=label, marker=marker, **style)
        if len(judged):
            best = judged[np.argmin(judged[:, 1]), 0]
            axis.axvline(best, color=GREY, lw=1, ls=":", label=f"best, epoch {best:.0f}")
        log_scale(axis, np.concatenate([curves[group, name][:, 1] for group in _GROUPS]))
        axis.set_xlabel("epoch")
        axis.set_ylabel(_LABELS[name])
    legend_above(axes[0])
    save_figure(figure, output)


def plot_parity(
    values: np.ndarray,
    output: str | Path,
    title: str,
    unit: str,
    error_unit: str | None = None,
    error_scale: float = 1.0,
) -> None:
    """Plot predicted against reference values, and a histogram of the errors.

    Parameters
    ----------
    values : numpy.ndarray, shape (2, n)
        Reference and predicted values.
    output : path
        Image file.
    title : str
    unit : str
        Unit of both axes.
    error_unit : str, optional
        Unit of the errors; by default `unit`.
    error_scale : float
        `unit` in terms of `error_unit`.
    """
    reference, predicted = np.asarray(values, dtype=np.float64)
    figure, (left, right) = new_figure(2, 4.0, 3.8)
    ends = [min(reference.min(), predicted.min()), max(reference.max(), predicted.max())]
    left.plot(ends, ends, color=GREY, lw=1)
    left.plot(reference, predicted, ".", ms=4, color=BLUE, alpha=0.5, rasterized=True)
    left.set_aspect("equal", adjustable="datalim")
    left.set_xlabel(f"reference ({unit})")
    left.set_ylabel(f"model ({unit})")
    errors = (predicted - reference) * error_scale
    width = 1.05 * max(float(np.abs(errors).max()), 1e-9)
    bins = int(np.clip(np.sqrt(errors.size), 11, 61)) | 1
    right.hist(errors, bins=bins, range=(-width, width), color=BLUE)
    right.axvline(0.0, color=GREY, lw=1)
    right.set_xlabel(f"model − reference ({error_unit or unit})")
    right.set_ylabel("number of values")
    for axis in (left, right):
        axis.locator_params(axis="x", nbins=5)
    figure.suptitle(title)
    save_figure(figure, output)


def plot_spread(
    spread: np.ndarray, error: np.ndarray, output: str | Path, title: str, unit: str
) -> None:
    """Plot the errors of a committee's mean against its spread, on logarithmic axes.

    Points are single values. The line is the root mean square error in bins of equal numbers of
    values with similar spread. If it follows the diagonal, the spread predicts the error.

    Parameters
    ----------
    spread, error : numpy.ndarray, shape (n,)
        Non-negative values.
    output : path
        Image file.
    title : str
    unit : str
        Unit of both.
    """
    figure, (axis,) = new_figure(1, 4.4, 4.2)
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
        axis.loglog(ends, ends, color=GREY, lw=1, zorder=0, label="error = spread")
        legend_above(axis)
    axis.set_xlabel(f"spread of the committee ({unit})")
    axis.set_ylabel(f"error of its mean ({unit})")
    figure.suptitle(title)
    save_figure(figure, output)
