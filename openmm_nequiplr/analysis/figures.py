"""Common style of all figures: colours, fonts, legends outside the data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import notify

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#1f5fa8", "#d9731a", "#3a8f5c", "#7b4fa3"
RED, GREY = "#b2182b", "0.6"
#: Colours of curves, in order.
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#8c6d31", "#2f9aa0", "#c2578f", "#5a5a5a")
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.alpha": 0.25,
}
_LEGEND: dict[str, Any] = {
    "borderaxespad": 0.2,
    "columnspacing": 1.2,
    "fontsize": 8,
    "frameon": False,
    "handlelength": 1.5,
}
_DPI = 130
_TITLE_SIZE, _LABEL_SIZE, _TICK_SIZE = 10, 9, 8


def new_figure(
    columns: int,
    width: float,
    height: float,
    rows: int = 1,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Any]]:
    """Create a figure in the style of this package, without a display or global state.

    Parameters
    ----------
    columns : int
    width : float, inch
        Width of a column.
    height : float, inch
        Height of the figure.
    rows : int
    sharex : bool
        Whether all axes share one x axis, labelled at the bottom.
    sharey : bool
        Whether all axes share one y axis, labelled at the left.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : list of matplotlib.axes.Axes
        Axes, row by row.
    """
    matplotlib = _matplotlib()
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(axes.ravel())


def _matplotlib() -> Any:
    """The module matplotlib, whose import would fail if ``MPLBACKEND`` names an unknown backend."""
    told = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if told is not None:
        os.environ["MPLBACKEND"] = told
        try:
            matplotlib.rcParams["backend"] = told
        except ValueError:
            notify(f"MPLBACKEND: {told!r} is no backend of matplotlib; figures are drawn by agg")
    return matplotlib


def save_figure(figure: Figure, output: str | Path) -> None:
    """Write a figure in the format given by the suffix of the file."""
    for axis in figure.axes:
        for each in (axis, *axis.child_axes):  # including colour bars and secondary axes
            each.title.set_fontsize(_TITLE_SIZE)
            each.xaxis.label.set_fontsize(_LABEL_SIZE)
            each.yaxis.label.set_fontsize(_LABEL_SIZE)
            each.tick_params(which="both", labelsize=_TICK_SIZE)
    for text in figure.texts:
        text.set_fontsize(_TITLE_SIZE)
    figure.savefig(output, dpi=_DPI)


def legend_above(axis: Axes, columns: int = 3, **options: Any) -> None:
    """Put the legend above the axes, where it covers no data.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Axes without a title.
    columns : int
        Largest number of entries in a row.
    **options
        Options of ``Axes.legend``.
    """
    count = len(options.get("handles", axis.get_legend_handles_labels()[0]))
    if count:
        where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
        axis.legend(ncols=min(columns, count), **where, **_LEGEND, **options)


def legend_beside(axis: Axes, **options: Any) -> None:
    """Put the legend to the right of the axes, for many entries; options of ``Axes.legend``."""
    if options.get("handles") or axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **_LEGEND, **options)


def log_scale(axis: Axes, values: np.ndarray, which: str = "y") -> None:
    """Make an axis logarithmic if positive values span more than a factor of five.

    Its labels are plain numbers at 1, 2 and 5 times the powers of ten, or only at powers of ten if
    the axis spans more than two decades.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0 or not (np.isfinite(values).all() and values.min() > 0.0):
        return
    span = values.max() / values.min()
    if span < 5.0:
        return
    axis.set(**{f"{which}scale": "log"})
    scale = axis.yaxis if which == "y" else axis.xaxis
    scale.set_major_locator(LogLocator(subs=(1.0,) if span > 100.0 else (1.0, 2.0, 5.0)))
    if span < 1e5:
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scale.set_minor_formatter(NullFormatter())
