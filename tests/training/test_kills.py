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


def _train(*trainings: tuple[Path, int, str]) -> list[list[int]]:
    """How the children of each training ended: configuration, number of kills, signal."""
    script = Path(__file__).with_name("kills.py")
    run = subprocess.run(
        [sys.executable, str(script), *(str(word) for each in trainings for word in each)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [[int(word) for word in line.split()] for line in run.stdout.splitlines()]


@pytest.mark.slow
def test_killed_and_resumed_is_the_uninterrupted_training(config_file, tmp_path):
    count = 6 + 2 * KILLS
    kills = {"whole": 0, "SIGKILL": KILLS, "SIGTERM": KILLS}
    outputs = {name: tmp_path / name for name in kills}
    settings = [_settings(config_file, output, count) for output in outputs.values()]
    signals = ["SIGKILL", "SIGKILL", "SIGTERM"]
    whole, *ends = _train(*zip(settings, kills.values(), signals, strict=True))
    assert whole == [0]
    for name, each in zip(("SIGKILL", "SIGTERM"), ends, strict=True):
        _compare_with_killed(outputs["whole"], outputs[name], count, name, each)


def _compare_with_killed(whole, killed, count, name, statuses):
    *ends, last = statuses
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
