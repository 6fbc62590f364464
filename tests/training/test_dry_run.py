"""Dry runs: what a training would do, and nothing written."""

from __future__ import annotations

import pytest
import yaml

from openmm_nequiplr import cli
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.dry_run import dry_run
from openmm_nequiplr.training.run import train


def _files(directory):
    return sorted(path for path in directory.rglob("*") if path.name != "__pycache__")


def test_nothing_is_written_and_all_is_said(config_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = _files(tmp_path)
    arguments = ["train", str(config_file), "--dry-run", "--set", "data.num_test=1"]
    assert cli.main(arguments) == 0
    assert _files(tmp_path) == before
    out = capsys.readouterr().out
    for piece in (
        "labels: energy of 7 (weight 10), forces of 7 (weight 1), charges of 7 (weight 10)",
        "structures: 7 for training, 2 for validation, 1 for the test",
        "elements O Na Cl",
        "epoch: ",
        "training: 4 epochs take",
        "memory: about",
        "nothing was written",
    ):
        assert piece in out, piece


@pytest.mark.usefixtures("no_pictures")
def test_an_output_that_is_taken(config_file, tmp_path):
    with pytest.raises(InputError, match="resume: expected a checkpoint"):
        dry_run(config_file, resume=True, progress=False)
    train(config_file, overrides={"max_epochs": 1}, progress=False)
    with pytest.raises(InputError, match="output: expected another directory"):
        dry_run(config_file, progress=False)
    assert dry_run(config_file, resume=True, seconds=0.0, progress=False).batches == 4


@pytest.mark.usefixtures("no_pictures")
def test_a_start_that_is_not_trained_yet(config_file, tmp_path, capsys):
    first = yaml.safe_load(config_file.read_text())
    second = {**first, "start_from": str(config_file), "output": str(tmp_path / "second")}
    del second["model"]
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(second))
    new = dry_run(path, seconds=0.0)
    assert f"start_from: {config_file} would be trained first" in capsys.readouterr().out
    train(config_file, overrides={"max_epochs": 1}, progress=False)
    trained = dry_run(path, seconds=0.0)
    assert "would be trained first" not in capsys.readouterr().out
    assert new.weights == trained.weights
    assert not (tmp_path / "second").exists()
