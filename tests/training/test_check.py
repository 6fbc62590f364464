"""A training ends with a check of its model, unless that is not wanted."""

from __future__ import annotations

import json

import pytest

from openmm_nequiplr import cli, load_model
from openmm_nequiplr.checking import check

FEW = {"frames": 1, "minimisations": 1, "steps": 2, "runs": 1, "ps": 0.01, "fs": 1.0}


@pytest.fixture
def few(monkeypatch):
    """Make the quick check quicker."""
    monkeypatch.setattr(check, "QUICK", FEW)


@pytest.mark.usefixtures("few", "no_pictures")
def test_a_training_ends_with_a_check(config_file, tmp_path, capsys):
    assert cli.main(["train", str(config_file), "--set", "max_epochs=1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    model = tmp_path / "out" / "model.safetensors"
    figures = json.loads(load_model(model).metadata["check"])
    assert last == f"{model}: {figures['verdict']}"
    assert figures["quick"] is True
    assert figures["data"] == "the validation structures"
    content = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert content["verdict"] == figures["verdict"]
    assert (tmp_path / "out" / "check.png").is_file()
    assert "validation" in load_model(model).metadata  # what was there stays


@pytest.mark.usefixtures("few", "no_pictures")
def test_the_check_can_be_left_out(config_file, tmp_path, capsys):
    command = ["train", str(config_file), "--no-check", "--set", "max_epochs=1"]
    assert cli.main(command) == 0
    assert not (tmp_path / "out" / "check.json").exists()
    assert "check" not in load_model(tmp_path / "out" / "model.safetensors").metadata


@pytest.mark.usefixtures("few", "no_pictures")
def test_a_check_that_cannot_be_made_does_not_undo_a_training(config_file, monkeypatch, capsys):
    from openmm_nequiplr import checking
    from openmm_nequiplr.errors import BackendError

    def fails(*arguments):
        raise BackendError("platform: none is there")

    monkeypatch.setattr(checking, "check_trained", fails)
    assert cli.main(["train", str(config_file), "--set", "max_epochs=1"]) == 0
    assert capsys.readouterr().out.endswith("check: skipped (platform: none is there)\n")
