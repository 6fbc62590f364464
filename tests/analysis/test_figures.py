"""The one style of all pictures: legends that cover no data, axes that can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openmm_nequiplr.analysis.figures import (
    legend_above,
    legend_beside,
    log_scale,
    new_figure,
    save_figure,
)


def test_an_unknown_backend_costs_no_figure(tmp_path):
    """Also in a process that has not imported matplotlib, as its import fails with such a name."""
    code = "import sys; from openmm_nequiplr.analysis import figures as f\n"
    code += (
        "assert 'matplotlib' not in sys.modules; f.save_figure(f.new_figure(1, 1, 1)[0], 'a.png')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "nonsense", "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "MPLBACKEND: 'nonsense' is no backend" in found.stderr
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize("place", [legend_above, legend_beside])
def test_legends_stay_outside_of_the_axes(place, tmp_path):
    figure, axes = new_figure(2, 3.4, 3.0)
    for axis in axes:
        for number in range(5):
            axis.plot([0, 1], [number, 1 - number], label=f"curve {number}")
        place(axis)
    save_figure(figure, tmp_path / "figure.png")
    for axis in axes:
        inside, legend = axis.get_window_extent(), axis.get_legend().get_window_extent()
        assert legend.y0 >= inside.y1 - 1 or legend.x0 >= inside.x1 - 1
        assert figure.bbox.contains(legend.x1, legend.y1)  # nor is it cut off


def test_no_legend_without_labels():
    _, (axis,) = new_figure(1, 3.0, 3.0)
    axis.plot([0, 1])
    legend_above(axis)
    legend_beside(axis)
    assert axis.get_legend() is None


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 100], "log"), ([1, 6], "log"), ([2, 3], "linear"), ([0, 9], "linear"), ([], "linear")],
)
def test_axes_are_logarithmic_where_values_span_much(values, scale):
    _, (axis,) = new_figure(1, 3.0, 3.0)
    log_scale(axis, np.array(values))
    assert axis.get_yscale() == scale
    assert axis.get_xscale() == "linear"


def test_labels_of_logarithmic_axes_are_plain_numbers():
    figure, (axis,) = new_figure(1, 3.0, 3.0)
    axis.plot([0, 1], [15.0, 140.0])
    log_scale(axis, np.array([15.0, 140.0]))
    figure.canvas.draw()
    assert {"20", "50", "100"} <= {label.get_text() for label in axis.get_yticklabels()}


def test_the_style_stays_in_the_figure():
    import matplotlib

    before = dict(matplotlib.rcParams)
    _, (axis,) = new_figure(1, 3.0, 3.0)
    assert dict(matplotlib.rcParams) == before
    assert not axis.spines["top"].get_visible()
