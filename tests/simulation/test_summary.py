"""What is on the picture of a run."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.simulation import summary
from openmm_nequiplr.simulation.reporters import ChargeTrajectory
from openmm_nequiplr.simulation.runfiles import LOG_COLUMNS

WATER = 18.015  # Da


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draw three frames of a molecule; the figure."""
    kept = []
    monkeypatch.setattr(summary, "save_figure", lambda figure, output: kept.append(figure))
    times, charges = np.array([0.1, 0.2, 0.3]), np.array([[-0.8, 0.4, 0.4]] * 3)
    found = ChargeTrajectory(np.arange(3), times, np.zeros((3, 3)), charges)
    monkeypatch.setattr(summary, "load_charges", lambda path: found)
    rows = [[k, times[k], -1.0, 0.1, -0.9, 290.0 + 10 * k, 30.0 - k, 1.0] for k in range(3)]
    lines = [",".join(LOG_COLUMNS), *(",".join(map(str, row)) for row in rows)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def call(**options):
        summary.draw_summary(log, log, ["O", "H", "H"], "H", tmp_path / "s.png", **options)
        return kept[-1]

    return call


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_the_target_of_the_thermostat_is_shown(draw):
    energy, heat, charge = draw(temperature=300.0).axes
    assert labels(energy) == ["potential", "total"]
    assert labels(heat) == ["temperature", "target 300 K"]
    assert labels(charge) == ["single atoms", "mean of 2 H"]
    assert labels(draw().axes[1]) == ["temperature"]


def test_volume_and_density_at_constant_pressure(draw):
    figure = draw(temperature=300.0, pressure=2.0, mass=WATER)
    assert len(figure.axes) == 4
    volume = figure.axes[2]
    assert labels(volume) == ["at 2 bar"]
    np.testing.assert_allclose(volume.lines[0].get_ydata(), [30.0, 29.0, 28.0])
    figure.canvas.draw()
    (density,) = volume.child_axes
    assert density.get_ylabel() == "density (g/cm³)"
    # 1 g/cm³ is a molecule of water in 29.915 Å³
    ends = sorted(density.get_ylim()), sorted(WATER * 1.66053907 / v for v in volume.get_ylim())
    np.testing.assert_allclose(*ends, rtol=1e-6)
    assert 29.0 < WATER * 1.66053907 < 30.0
