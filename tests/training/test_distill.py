"""Distillation: the labels are those of a model, whatever the data have."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from ase.io import read, write

from openmm_nequiplr import cli, load_model, save_model
from openmm_nequiplr.errors import InputError, ModelFileError
from openmm_nequiplr.training.config import load_config
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.preparation import prepare, read_parts
from openmm_nequiplr.training.run import train


@pytest.fixture
def bare_file(data_file, make_model, tmp_path):
    """The clusters without labels, and beside them a model that never saw them."""
    frames = read(data_file, ":")
    for atoms in frames:
        atoms.calc = None
        atoms.info = {"total_charge": atoms.info["total_charge"]}
        for name in set(atoms.arrays) - {"numbers", "positions"}:
            del atoms.arrays[name]
    write(tmp_path / "bare.extxyz", frames)
    save_model(make_model(num_features=3), tmp_path / "teacher.safetensors")
    return tmp_path / "bare.extxyz"


@pytest.fixture
def distilling(config_file, bare_file, small_model):
    """A training file for a model without charges, which has displaced copies."""
    config = yaml.safe_load(config_file.read_text())
    config["data"]["train"] = str(bare_file)
    config["model"] = {**small_model, "equilibration": False}
    config["loss"] = {"forces": 1.0}
    config["distill_from"] = "teacher.safetensors"
    config["harmonic"] = {"copies": 1, "displacement": 0.05}
    config_file.write_text(yaml.safe_dump(config))
    return config_file


def test_labels_are_those_of_the_model(distilling, bare_file):
    config, _ = load_config(distilling)
    parts = read_parts(config, distilling)
    teacher = load_model(bare_file.parent / "teacher.safetensors")

    def check(structure):
        charge = structure.total_charge
        graph = teacher.build_graph(structure.symbols, structure.positions, total_charge=charge)
        expected = teacher(graph)  # by differentiation, while labels come by adjoint charges
        assert structure.energy == pytest.approx(expected.energy.item(), abs=1e-8)
        np.testing.assert_allclose(structure.forces, expected.forces, atol=1e-8)
        assert structure.charges is None

    for structure in (*parts.train, *parts.validation):
        check(structure)
    (bare_file.parent / "teacher.safetensors").unlink()  # it is read once
    with pytest.raises(ModelFileError, match="^distill_from: expected a model file"):
        read_parts(config, distilling)
    _, data, _ = prepare(config, parts, distilling)
    copies = data.structures[len(parts.train) :]
    assert len(copies) == len(parts.train)
    for old, copy in zip(parts.train, copies, strict=True):
        assert 0.02 < np.std(copy.positions - old.positions) < 0.09
        assert copy.weight == config.harmonic.weight
        check(copy)


def test_charges_are_refused(distilling):
    config, _ = load_config(distilling, {"loss.charges": 1.0})
    with pytest.raises(InputError, match=r"energies and forces alone.*charges"):
        read_parts(config, distilling)


@pytest.mark.usefixtures("no_pictures")
def test_a_training_continues(distilling, tmp_path, capsys):
    output = str(tmp_path / "parts")
    train(distilling, overrides={"output": output, "max_epochs": 2}, progress=False)
    train(distilling, resume=True, overrides={"output": output}, progress=False)
    train(distilling, progress=False)
    whole, parts = (load_model(tmp_path / n / "model_last.safetensors") for n in ("out", "parts"))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-6)
    assert not whole.config.equilibration
    with pytest.raises(InputError, match="no labels"):
        evaluate_model(tmp_path / "out" / "model.safetensors", split="train")
    said = capsys.readouterr().out
    assert "labels: those of the data; the training learned from teacher.safetensors" in said
    teacher = load_model(tmp_path / "teacher.safetensors")
    next(teacher.parameters()).data.mul_(1.1)
    save_model(teacher, tmp_path / "teacher.safetensors")
    with pytest.raises(
        InputError, match=r"got 'distill_from \(a model with other weights or settings\)'"
    ):
        train(distilling, resume=True, overrides={"output": output}, progress=False)


@pytest.mark.usefixtures("no_pictures")
def test_init_writes_a_file_for_it(bare_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["init", str(bare_file), "--distill", "teacher.safetensors"])
    path = tmp_path / "bare-inner.yaml"
    config, _ = load_config(path)
    assert (config.distill_from, config.output) == ("teacher.safetensors", "bare-inner")
    result = train(path, overrides={"max_epochs": 1}, progress=False)
    assert not load_model(result.model_path).config.equilibration
