"""The recorded split of a training, and evaluations that read it."""

from __future__ import annotations

import json
import shutil

import pytest

from openmm_nequiplr import cli
from openmm_nequiplr.data import read_structures
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.committee import train_committee
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.run import train
from openmm_nequiplr.training.splits import recorded_part

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def trained(config_file, tmp_path):
    """A model of one epoch, in whose output directory the split is."""
    train(config_file, overrides={"max_epochs": 1, "data.num_test": 3}, progress=False)
    return tmp_path / "out" / "model.safetensors"


def test_each_part_is_what_the_training_used(trained, data_file):
    structures = read_structures(data_file)
    split = json.loads((trained.parent / "split.json").read_text(encoding="utf-8"))
    metrics = json.loads((trained.parent / "metrics.json").read_text(encoding="utf-8"))
    sizes = {}
    for name in ("train", "validation", "test"):
        part = recorded_part(trained, name)
        assert (part.files, part.indices) == ((data_file,), tuple(split[name]))
        found = evaluate_model(trained, split=name, verbose=False)
        expected = evaluate_model(trained, [structures[i] for i in split[name]], verbose=False)
        assert found == expected
        sizes[name] = found.num_structures
    assert sizes == {"train": 5, "validation": 2, "test": 3}
    assert found.forces.rmse == pytest.approx(metrics["test"]["forces"]["rmse"])


def test_files_of_their_own_are_whole_parts(config_file, data_file, tmp_path):
    other = shutil.copy(data_file, tmp_path / "other.extxyz")
    overrides = {"max_epochs": 1, "data.validation": str(other), "data.num_test": 2}
    train(config_file, overrides=overrides, progress=False)
    model = tmp_path / "out" / "model.safetensors"
    part = recorded_part(model, "validation")
    assert (part.files, part.indices) == ((other,), None)
    assert recorded_part(model, "test").files == (data_file,)
    assert evaluate_model(model, split="validation", verbose=False).num_structures == 10


def test_units_and_keys_are_those_of_the_training(config_file, data_file, tmp_path):
    text = data_file.read_text(encoding="utf-8").replace("REF_energy", "e_dft")
    renamed = tmp_path / "renamed.extxyz"
    renamed.write_text(text, encoding="utf-8")
    first = {"path": str(renamed), "keys": {"energy": "e_dft"}, "weight": 0.5}
    overrides = {
        "max_epochs": 1,
        "data.train": [first, str(data_file)],
        "data.keys": {"energy": "REF_energy", "charges": "REF_charges"},
    }
    train(config_file, overrides=overrides, progress=False)
    model = tmp_path / "out" / "model.safetensors"
    found = evaluate_model(model, split="train", verbose=False)
    assert found.energy_per_atom.count == 18
    assert found.charges.count == 18 * 5


def test_moved_data_are_accepted_and_other_data_are_not(config_file, data_file, tmp_path):
    first = shutil.copy(data_file, tmp_path / "first.extxyz")
    train(config_file, overrides={"max_epochs": 1, "data.train": str(first)}, progress=False)
    model = tmp_path / "out" / "model.safetensors"
    moved = first.rename(tmp_path / "moved.extxyz")
    with pytest.raises(InputError, match=r"DATA where it is now, got 'no .*first"):
        recorded_part(model, "train")
    assert recorded_part(model, "train", moved).files == (moved,)
    moved.write_text(moved.read_text().replace("e", "f", 1))
    with pytest.raises(InputError, match=r"as it was in the training .* got .*moved.*another"):
        recorded_part(model, "train", moved)


def test_mistakes_are_named(trained, make_model, tmp_path):
    with pytest.raises(InputError, match=r"split: expected one of .*; did you mean 'test'\?"):
        recorded_part(trained, "tests")
    for model in (make_model(), "au2-mgo"):
        with pytest.raises(InputError, match="split: expected a model file in the output direc"):
            evaluate_model(model, split="test")
    (trained.parent / "split.json").write_text('{"train": [0], "validation": [1], "test": []}')
    with pytest.raises(InputError, match="split: expected a record of this version"):
        recorded_part(trained, "train")
    with pytest.raises(InputError, match="data: expected a data file, or a split"):
        evaluate_model(trained)


def test_an_empty_part(config_file, tmp_path):
    train(config_file, overrides={"max_epochs": 1}, progress=False)
    with pytest.raises(InputError, match="split: expected another part, got 'test, which is empty"):
        recorded_part(tmp_path / "out" / "model.safetensors", "test")


def test_results_as_json(trained, capsys):
    assert cli.main(["evaluate", str(trained), "--split", "test", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num_structures"] == 3
    assert "RMSE" in captured.err
    assert cli.main(["evaluate", str(trained), "--split", "test"]) == 0
    assert "RMSE" in capsys.readouterr().out


def test_committees(config_file, tmp_path, capsys):
    train_committee(config_file, [0, 1], overrides={"max_epochs": 1}, progress=False)
    assert cli.main(["evaluate", str(tmp_path / "out"), "--split", "validation", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["mean"]["num_structures"] == 2
    assert len(figures["members"]) == 2
