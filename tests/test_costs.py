"""Measured numbers of atoms: kept, read, chosen by, and said when they cannot be read."""

from __future__ import annotations

import warnings

import pytest
import torch

from openmm_nequiplr import costs, devices
from openmm_nequiplr.costs import Crossings
from openmm_nequiplr.describe import describe_charges
from openmm_nequiplr.doctor import calibration
from openmm_nequiplr.errors import NequIPLRWarning
from openmm_nequiplr.model import ModelConfig
from openmm_nequiplr.model.solving import SolverOptions


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NEQUIPLR_CACHE", str(tmp_path))
    return tmp_path


def test_kept_numbers_choose_the_solver_and_are_said():
    config = ModelConfig(type_names=("O",), r_max=3.0)
    assert not SolverOptions().iterative(config, 100, True)
    costs.keep({"cpu": Crossings(100, 300)})
    costs.keep({"a GPU": Crossings(1, 2, 3)})
    assert costs.measured(costs.costs_file()) == {
        "cpu": Crossings(100, 300),
        "a GPU": Crossings(1, 2, 3),
    }
    assert SolverOptions().iterative(config, 100, True, "cpu")
    assert not SolverOptions().iterative(config, 299, False)
    assert not SolverOptions("dense").iterative(config, 100, True)
    assert describe_charges(config, 100, True, SolverOptions()).startswith(
        "charges by iterative solve (as measured here)"
    )
    costs.costs_file().unlink()
    costs.measured.cache_clear()
    assert costs.crossings() == Crossings()


@pytest.mark.parametrize("text", ["{", "[]", '{"cpu": {"wide": 3}}', '{"cpu": {"free": "3"}}'])
def test_a_damaged_file_is_said_and_left_out(text):
    costs.costs_file().write_text(text)
    with pytest.warns(NequIPLRWarning, match="costs.json: not read .*--calibrate replaces it"):
        assert costs.crossings() == Crossings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert costs.crossings() == Crossings()  # said once
    costs.keep({"cpu": Crossings(free=1)})
    assert costs.crossings().free == 1


def test_the_device_goes_by_size(monkeypatch):
    assert costs.default_device(1) == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(devices, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(costs, "device_name", lambda device: "a GPU")
    assert costs.default_device(1) == "cuda"
    costs.keep({"a GPU": Crossings(gpu=50)})
    assert costs.default_device(50) == "cuda"
    with pytest.warns(NequIPLRWarning, match="faster than the GPU below 50 atoms"):
        assert costs.default_device(49) == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # who asked for a device is told nothing of another one
        assert costs.default_device(49, "cuda") == "cuda"


def test_the_crossing_of_two_times(monkeypatch):
    """Steps of 8 n units against steps of 100."""
    now = [0.0]
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: now[0])

    def taking(seconds):
        def step():
            now[0] += seconds

        return step

    shapes = [(1, 1, n) for n in (1, 10, 20, 40)]
    found = calibration.crossing(shapes, lambda s: taking(8.0 * s[2]), lambda s: taking(100.0))
    assert found == round((80 * 160) ** 0.5)
    assert calibration.crossing(shapes[2:], lambda s: taking(2), lambda s: taking(1)) == 160
    assert calibration.crossing(shapes, lambda s: taking(1), lambda s: taking(2)) == 320


def test_numbers_that_cannot_be_kept_are_told(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEQUIPLR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(calibration, "crossing", lambda *arguments: 7)
    found = calibration.calibrate()
    assert "cpu: iterative from 7 periodic or 7 isolated atoms" in found
    assert "not stored (" in found


def test_this_machine_is_measured(capsys):
    found = calibration.calibrate(print, sizes=1)
    assert "cpu: iterative from 64 periodic or 1000 isolated atoms" in found
    assert str(costs.costs_file()) in found
    assert costs.crossings() == Crossings(64, 1000)
    assert "64 atoms:" in capsys.readouterr().out
