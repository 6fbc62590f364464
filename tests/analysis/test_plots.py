"""What is on the pictures of trainings."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.analysis import plots

LOG = """epoch,train_loss,validation_loss,train_forces_rmse,validation_forces_rmse
0,9.0,8.0,900,800
1,1.0,0.5,120,100
2,0.5,0.6,90,110
"""


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written."""
    kept = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, output: kept.append(figure))
    return kept


def test_learning_curves_mark_the_best_epoch(figures, tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    plots.plot_learning_curve(tmp_path / "metrics.csv", tmp_path / "curve.png")
    loss, forces = figures[0].axes
    lines = {line.get_label(): line for line in loss.lines}
    assert set(lines) == {"training", "validation", "best, epoch 2"}
    np.testing.assert_allclose(lines["validation"].get_xydata(), [[1, 8.0], [2, 0.5], [3, 0.6]])
    assert lines["training"].get_linestyle() != lines["validation"].get_linestyle()
    assert forces.get_ylabel() == "forces RMSE (meV/Å)"
    assert loss.get_yscale() == "log"


def test_learning_curves_without_validation_so_far(figures, tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,train_loss,validation_loss\n0,9.0,\n")
    plots.plot_learning_curve(tmp_path / "metrics.csv", tmp_path / "curve.png")
    labels = [line.get_label() for line in figures[0].axes[0].lines]
    assert labels == ["training", "validation"]
