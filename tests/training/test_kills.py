"""Trainings that are killed, again and again: nothing is lost, nothing stands twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from openmm_nequiplr.model import load_model

from .log import epochs

#: More for a thorough run, for example NEQUIPLR_KILLS=30.
KILLS = int(os.environ.get("NEQUIPLR_KILLS", "2"))


def _settings(config_file: Path, output: Path, max_epochs: int) -> Path:
    settings = yaml.safe_load(config_file.read_text())
    settings |= {"output": str(output), "max_epochs": max_epochs, "num_threads": 1}
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings))
    return path


def _train(config: Path, kills: int, name: str = "SIGKILL", seed: int = 0) -> list[int]:
    script = Path(__file__).with_name("kills.py")
    run = subprocess.run(
        [sys.executable, str(script), str(config), str(kills), str(seed), name],
        capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [int(word) for word in run.stdout.split()]


@pytest.mark.slow
def test_killed_and_resumed_is_the_uninterrupted_training(config_file, tmp_path):
    count = 6 + 2 * KILLS
    whole = tmp_path / "whole"
    assert _train(_settings(config_file, whole, count), 0) == [0]
    for name in ("SIGKILL", "SIGTERM"):
        _compare_with_killed(config_file, whole, tmp_path / name, count, name)


def _compare_with_killed(config_file, whole, killed, count, name):
    *ends, last = _train(_settings(config_file, killed, count), KILLS, name)
    assert last == 0, killed.with_suffix(".log").read_text(encoding="utf-8")
    allowed = {0, -signal.SIGKILL} if name == "SIGKILL" else {0, 143, -signal.SIGTERM}
    assert set(ends) <= allowed, killed.with_suffix(".log").read_text(encoding="utf-8")
    assert any(ends)  # one at least was killed
    assert epochs(killed) == epochs(whole)
    assert [int(row["epoch"]) for row in epochs(killed)] == list(range(count))
    states = [torch.load(o / "last.ckpt", weights_only=True)["state_dict"] for o in (whole, killed)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    models = [load_model(o / "model.safetensors").state_dict() for o in (whole, killed)]
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())
    assert not list(killed.glob("*.part"))
    if 143 in ends:
        assert "ended by SIGTERM: " in killed.with_suffix(".log").read_text(encoding="utf-8")
