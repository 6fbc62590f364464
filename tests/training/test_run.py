"""Training end to end, on a handful of molecules labelled by a random model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase.io import read, write

from openmm_nequiplr.data import read_structures
from openmm_nequiplr.data.dataset import GraphDataset
from openmm_nequiplr.errors import ConvergenceError, InputError, NequIPLRError
from openmm_nequiplr.model import load_model, save_model
from openmm_nequiplr.training import recorder
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.run import train

from .log import check_same_training_errors, epochs


def test_training_learns_and_leaves_everything_behind(config_file, tmp_path, capsys):
    result = train(config_file, overrides={
        "max_epochs": 60, "schedule.name": "cosine", "data.num_test": 2,
    })  # fmt: skip
    output = tmp_path / "out"
    for name in (
        "model.safetensors", "model_last.safetensors", "last.ckpt", "metrics.csv", "config.yaml",
        "learning_curve.png", "split.json", "metrics.json", "test/parity_forces.png",
    ):  # fmt: skip
        assert (output / name).stat().st_size > 0, name
    rows = epochs(output)
    assert [int(r["epoch"]) for r in rows] == list(range(60))
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])
    assert result.validation.charges.rmse < float(rows[0]["validation_charges_rmse"])
    assert result.test.num_structures == 2
    assert "meV/Å" in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
def test_model_file_is_the_best_epoch_with_averaged_weights(
    config_file, data_file, small_model, tmp_path
):
    """Its errors, computed afresh, are those in the log of the best epoch."""
    train(config_file, overrides={"refit_energy_shifts": False}, progress=False)
    output = tmp_path / "out"
    model = load_model(output / "model.safetensors")
    best = min(epochs(output), key=lambda r: float(r["validation_loss"]))
    assert model.metadata["epoch"] == best["epoch"]
    split = json.loads((output / "split.json").read_text(encoding="utf-8"))
    structures = read_structures(data_file)
    metrics = evaluate_model(model, [structures[i] for i in split["validation"]], verbose=False)
    for name in ("energy_per_atom", "forces", "charges"):
        logged = float(best[f"validation_{name}_rmse"])
        assert getattr(metrics, name).rmse == pytest.approx(logged, rel=1e-3)
    recorded = json.loads(model.metadata["validation"])
    assert recorded["forces"]["rmse"] == pytest.approx(metrics.forces.rmse, rel=1e-6)
    assert model.metadata["training_data"] == "clusters.extxyz"
    assert yaml.safe_load(model.metadata["training_config"])["model"] == small_model
    assert model.config.type_names == ("O", "Na", "Cl")
    assert not model.training
    train_part = GraphDataset([structures[i] for i in split["train"]], model)
    charges = torch.cat([model(item.graph).charges for item in train_part])
    types = torch.cat([item.graph.types for item in train_part])
    for name, (lowest, highest) in json.loads(model.metadata["charge_range"]).items():
        own = charges[types == model.config.type_names.index(name)]
        assert (own.min().item(), own.max().item()) == pytest.approx((lowest, highest), abs=1e-6)


@pytest.mark.usefixtures("no_pictures")
def test_a_new_model_is_safe_unless_told_otherwise(config_file, data_file, tmp_path):
    """Repulsion and distances end where the training structures do; the paper's model on demand."""
    train(config_file, overrides={"max_epochs": 1}, progress=False)
    config = load_model(tmp_path / "out" / "model.safetensors").config
    assert config.electrostatic_energy == "coulomb"
    assert config.zbl
    assert config.electronegativity_bound == 6.0
    split = json.loads((tmp_path / "out" / "split.json").read_text(encoding="utf-8"))
    frames = read(data_file, ":")
    closest = min((frames[i].get_all_distances() + 9.0 * np.eye(5)).min() for i in split["train"])
    assert np.min(config.shortest_distances) == pytest.approx(closest, abs=1e-4)
    paper = {
        "electrostatic_energy": "qeq", "electronegativity_bound": None, "zbl": False,
        "shortest_distances": None,
    }  # fmt: skip
    overrides = {f"model.{name}": value for name, value in paper.items()}
    train(config_file, overrides={**overrides, "max_epochs": 1, "output": str(tmp_path / "2")},
          progress=False)  # fmt: skip
    config = load_model(tmp_path / "2" / "model.safetensors").config
    assert {name: getattr(config, name) for name in paper} == paper


def _state(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "last.ckpt", weights_only=False)["state_dict"]


def _same(first: Path, second: Path) -> None:
    a, b = _state(first), _state(second)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different
    assert epochs(first) == epochs(second)
    weights = [load_model(p / "model.safetensors").state_dict() for p in (first, second)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


@pytest.mark.usefixtures("no_pictures")
def test_resumed_run_is_the_uninterrupted_run(config_file, tmp_path):
    """4 epochs = 2 epochs + 2 more, to the bit: weights, averages, learning rates, log."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(config_file, overrides={"output": str(whole)}, progress=False)
    train(config_file, overrides={"output": str(halves), "max_epochs": 2}, progress=False)
    assert len(epochs(halves)) == 2
    train(config_file, True, overrides={"output": str(halves)}, progress=False)
    _same(whole, halves)


@pytest.mark.usefixtures("no_pictures")
def test_resume_after_a_crash_in_the_middle(config_file, tmp_path, monkeypatch):
    """With a schedule that depends on the length of the run, and a log that ran ahead."""
    whole, crashed = tmp_path / "whole", tmp_path / "crashed"
    options = {"schedule.name": "cosine", "schedule.warmup_epochs": 1, "validation_interval": 2,
               "loss.final": {"charges": 1.0}}  # fmt: skip
    train(config_file, overrides=options | {"output": str(whole)}, progress=False)
    record = recorder.Recorder._record

    def crash(self, trainer, module, lr):
        record(self, trainer, module, lr)
        if trainer.current_epoch == 2:
            raise RuntimeError("power cut")

    options["output"] = str(crashed)
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "_record", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config_file, overrides=options, progress=False)
    assert len(epochs(crashed)) == 3
    train(config_file, resume=True, overrides=options, progress=False)
    _same(whole, crashed)


@pytest.mark.usefixtures("no_pictures")
def test_weights_of_the_loss_move_to_their_final_values(config_file, tmp_path):
    """Each epoch is judged with the weights of its beginning, validation with those of the end."""
    train(config_file, overrides={"loss.final": {"energy_per_atom": 1e4}}, progress=False)
    for epoch, row in enumerate(epochs(tmp_path / "out")):
        squares = {
            (part, name): float(row[f"{part}_{name}_rmse"]) ** 2
            for part in ("train", "validation")
            for name in ("energy_per_atom", "forces", "charges")
        }  # in the units of the log
        units = {"energy_per_atom": 1e-6, "forces": 1e-6, "charges": 1e-6}
        for part, energy in (("train", 10.0 * 1000.0 ** (epoch / 4)), ("validation", 1e4)):
            weights = {"energy_per_atom": energy, "forces": 1.0, "charges": 10.0}
            loss = sum(w * units[n] * squares[part, n] for n, w in weights.items())
            assert float(row[f"{part}_loss"]) == pytest.approx(loss, rel=1e-3)


def test_resume_needs_a_checkpoint(config_file):
    with pytest.raises(InputError, match=r"resume: expected a checkpoint"):
        train(config_file, resume=True)


@pytest.mark.usefixtures("no_pictures")
def test_double_precision_and_separate_files(config_file, data_file):
    overrides = {
        "precision": "double",
        "max_epochs": 1,
        "ema_decay": 0,
        "loss.per_species": ["forces", "charges"],
        "data.validation": str(data_file),
        "optimizer": {"name": "adamw", "weight_decay": 0.01, "amsgrad": True},
    }
    result = train(config_file, overrides=overrides, progress=False)
    assert result.validation.num_structures == 10
    assert result.test is None
    assert load_model(result.model_path).dtype == torch.float64


@pytest.mark.usefixtures("no_pictures")
def test_time_limit_ends_the_training(config_file, tmp_path, capsys):
    train(config_file, overrides={"max_time": 1e-6, "max_epochs": 50})
    assert len(epochs(tmp_path / "out")) == 1
    assert "epoch 1  loss" in capsys.readouterr().out  # of 50 that it will not reach


@pytest.mark.usefixtures("no_pictures")
def test_a_training_that_no_longer_improves_ends(config_file, tmp_path):
    """Nothing is learned: no validation is better than the first, also after a resumption."""
    options = {"early_stopping": 2, "optimizer.lr": 1e-30, "ema_decay": 0, "batch_atoms": 11}
    train(config_file, overrides=options | {"max_epochs": 2}, progress=False)
    assert len(epochs(tmp_path / "out")) == 2
    train(config_file, resume=True, overrides=options | {"max_epochs": 9}, progress=False)
    rows = epochs(tmp_path / "out")
    assert [row["step"] for row in rows] == ["4", "8", "12"]  # 40 atoms, 10 or so in a step
    options |= {"early_stopping": 3, "max_epochs": 9}
    for _ in range(2):  # where it has ended there is nothing more to do
        train(config_file, resume=True, overrides=options, progress=False)
        assert len(epochs(tmp_path / "out")) == 4
    options |= {"loss.forces": 100.0}  # losses are larger now, and the first is the best again
    train(config_file, True, options, progress=False, accept_changes=True)
    assert len(epochs(tmp_path / "out")) == 8


@pytest.mark.usefixtures("no_pictures")
def test_diverged_training_is_an_error(config_file):
    overrides = {"optimizer.lr": 1e30, "gradient_clip": None, "ema_decay": 0}
    with pytest.raises((ConvergenceError, RuntimeError)):
        train(config_file, overrides=overrides, progress=False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.rmax": 3.0}, r"unknown key 'rmax' in model: did you mean 'r_max'"),
        ({"loss.stress": 1.0}, r"loss\.stress: expected labels, or 0"),
        ({"loss.final": {"stress": 1.0}}, r"loss\.stress: expected above 0"),
        ({"loss.final": {"force": 1.0}}, r"'force' in loss\.final: did you mean 'forces'"),
        ({"data.memory": -1.0}, r"data\.memory: expected at least 0"),
        ({"data.train": []}, r"data\.train: expected one file or more"),
        ({"data.num_validation": 10}, r"split\.train: expected at least one structure"),
        ({"harmonic.copies": 1, "loss.forces": 0.0}, r"harmonic\.copies: expected 0 where loss\.f"),
        ({"model.type_names": ["Na", "Cl"]}, r"xyz, structure \d+: elements: .*'O'"),
    ],
)
def test_mistakes_are_named(config_file, overrides, message):
    with pytest.raises(InputError, match=message):
        train(config_file, overrides=overrides, progress=False)


@pytest.mark.usefixtures("no_pictures")
def test_training_starts_from_a_model(config_file, data_file, tmp_path):
    """Without steps to speak of it stays that model, but for shifts fitted to other energies."""
    first = train(config_file, progress=False).model_path
    frames = read(data_file, ":")
    for atoms in frames:
        atoms.info["REF_energy"] += 500.0 * len(atoms)
    write(tmp_path / "shifted.extxyz", frames, format="extxyz")
    overrides = {
        "output": str(tmp_path / "second"), "start_from": str(first), "model": {"r_max": 3.5},
        "data.train": str(tmp_path / "shifted.extxyz"), "optimizer.lr": 1e-12, "max_epochs": 1,
    }  # fmt: skip
    second = train(config_file, overrides=overrides, progress=False).model_path
    structures = read_structures(data_file)[:3]
    for structure in structures:
        one, other = (
            model(model.build_graph(structure.symbols, structure.positions,
                                    total_charge=structure.total_charge))
            for model in map(load_model, (first, second))
        )  # fmt: skip
        assert torch.allclose(one.forces, other.forces, atol=1e-5)
        change = other.energy - one.energy
        assert change.item() == pytest.approx(500.0 * structure.num_atoms, abs=1e-3)
    assert load_model(second).metadata["start_from"] == str(first)
    overrides["max_epochs"] = 2
    train(config_file, resume=True, overrides=overrides, progress=False)
    replaced = load_model(first)
    next(replaced.parameters()).data.mul_(1.1)
    save_model(replaced, first)
    with pytest.raises(InputError, match=r"start_from \(a model with other weights or settings"):
        train(config_file, resume=True, overrides=overrides, progress=False)


@pytest.mark.usefixtures("no_pictures")
def test_frozen_parts_stay_and_new_elements_join(config_file, data_file, tmp_path, capsys):
    """The first model knows no oxygen; the second one learns it, with the charges frozen."""
    frames = read(data_file, ":")
    for atoms in frames:
        del atoms[[atom.symbol == "O" for atom in atoms]]
        del atoms.arrays["REF_charges"]
    write(tmp_path / "salt.extxyz", frames, format="extxyz")
    salt = {"data.train": str(tmp_path / "salt.extxyz"), "loss.charges": 0, "max_epochs": 2}
    first = train(config_file, overrides=salt, progress=False).model_path
    overrides = {
        "output": str(tmp_path / "second"), "start_from": str(first), "model": {}, "max_epochs": 2,
        "freeze": ["electronegativity_stage", "hardness_parameter"], "refit_energy_shifts": False,
    }  # fmt: skip
    second = train(config_file, overrides=overrides, progress=False).model_path
    assert "elements O are new" in capsys.readouterr().out
    one, other = map(load_model, (first, second))
    assert (one.config.type_names, other.config.type_names) == (("Na", "Cl"), ("Na", "Cl", "O"))
    assert torch.equal(other.hardness_parameter[:2], one.hardness_parameter)
    graphs = [m.build_graph(["Na", "Cl"], np.diag([0.0, 0.0, 2.3])[1:]) for m in (one, other)]
    chi = [m(graph).electronegativity for m, graph in zip((one, other), graphs, strict=True)]
    assert torch.allclose(chi[0], chi[1], atol=1e-6)
    name = "energy_stage.readout.scalar.weight"
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


@pytest.mark.usefixtures("no_pictures")
def test_structures_of_other_weights_count_in_the_errors(config_file, data_file, tmp_path):
    """Weights change the loss, not the errors that are shown."""
    frames = read(data_file, ":")
    for atoms in frames:
        atoms.info["config_weight"] = 2.0
    write(tmp_path / "weighted.extxyz", frames, format="extxyz")
    rows = []
    for name in (str(data_file), str(tmp_path / "weighted.extxyz")):
        output = tmp_path / f"out_{len(rows)}"
        overrides = {"data.train": name, "max_epochs": 1, "optimizer.lr": 1e-12}
        train(config_file, overrides={**overrides, "output": str(output)}, progress=False)
        rows.append(epochs(output)[0])
    check_same_training_errors(*rows)


@pytest.mark.usefixtures("no_pictures")
def test_another_configuration_is_trained_first(config_file, tmp_path, capsys):
    """Once: the second training finds it, and refuses what has other settings."""
    settings = yaml.safe_load(config_file.read_text())
    earlier = tmp_path / "earlier.yaml"
    earlier.write_text(yaml.safe_dump({**settings, "output": str(tmp_path / "earlier")}))
    given = {"start_from": earlier.name, "model": {}, "optimizer.lr": 1e-12, "max_epochs": 1}
    result = train(config_file, overrides=given)
    weights = [
        dict(load_model(path).named_parameters())
        for path in (tmp_path / "earlier/model.safetensors", result.model_path)
    ]
    assert all(torch.allclose(p, weights[1][name], atol=1e-7) for name, p in weights[0].items())
    assert load_model(result.model_path).metadata["start_from"] == "earlier.yaml"
    made = (tmp_path / "earlier/metrics.json").stat().st_mtime_ns
    assert "training" in capsys.readouterr().out
    train(config_file, overrides={**given, "output": str(tmp_path / "again")})
    assert "was trained before" in capsys.readouterr().out
    assert (tmp_path / "earlier/metrics.json").stat().st_mtime_ns == made
    earlier.write_text(yaml.safe_dump({**settings, "output": str(tmp_path / "earlier"), "seed": 7}))
    with pytest.raises(InputError, match=r"start_from: expected that of .*earlier\.yaml, or noth"):
        train(config_file, overrides={**given, "output": str(tmp_path / "new")}, progress=False)


@pytest.mark.usefixtures("no_pictures")
def test_a_training_is_not_overwritten(config_file, tmp_path):
    train(config_file, overrides={"max_epochs": 1}, progress=False)
    before = (tmp_path / "out/last.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"output: expected another directory \(--resume"):
        train(config_file, overrides={"max_epochs": 2}, progress=False)
    assert (tmp_path / "out/last.ckpt").read_bytes() == before


@pytest.mark.usefixtures("no_pictures")
def test_an_interrupted_earlier_training_goes_on(config_file, tmp_path):
    settings = yaml.safe_load(config_file.read_text())
    earlier = tmp_path / "earlier.yaml"
    earlier.write_text(yaml.safe_dump({**settings, "output": str(tmp_path / "earlier")}))
    whole = dict(load_model(train(earlier, progress=False).model_path).named_parameters())
    (tmp_path / "earlier/metrics.json").unlink()
    before = (tmp_path / "earlier/metrics.csv").read_text()
    given = {"start_from": earlier.name, "model": {}, "max_epochs": 1}
    train(config_file, overrides=given, resume=True, progress=False)
    again = dict(load_model(tmp_path / "earlier/model.safetensors").named_parameters())
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert (tmp_path / "earlier/metrics.csv").read_text() == before
    assert len(epochs(tmp_path / "out")) == 1


def test_configurations_that_start_from_each_other(config_file, tmp_path):
    settings = yaml.safe_load(config_file.read_text())
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**settings, "start_from": config_file.name}))
    with pytest.raises(InputError, match=r"start_from: expected a training that comes before"):
        train(config_file, overrides={"start_from": other.name}, progress=False)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"start_from": "none"}, r"start_from: expected a model file or a shipped model"),
        ({"model.r_max": 3.0}, r"model\.r_max: expected 3\.5, as in start_from, got 3\.0"),
        ({"equilibration.charge_epochs": 1}, r"equilibration: expected nothing with start_from"),
        ({"freeze": ["energy_stag"]}, r"unknown freeze 'energy_stag': did you mean 'energy_stage'"),
        (
            {"freeze": ["electronegativity_stage", "energy_stage", "hardness_parameter"]},
            r"freeze: expected parts that leave something to train",
        ),
    ],
)
def test_mistakes_with_an_earlier_model(
    config_file, small_model, make_model, tmp_path, overrides, message
):
    model = make_model(**small_model)
    save_model(model, tmp_path / "earlier.safetensors")
    given = {"start_from": str(tmp_path / "earlier.safetensors"), **overrides}
    with pytest.raises(NequIPLRError, match=message):
        train(config_file, overrides=given, progress=False)


@pytest.mark.usefixtures("no_pictures")
def test_a_model_without_equilibration_trains_on_energies_and_forces(config_file, tmp_path):
    changes = {"model.equilibration": False, "max_epochs": 2}
    with pytest.raises(InputError, match=r"loss.charges: expected 0 with model.equilibration"):
        train(config_file, overrides=changes, progress=False)
    changes["loss.charges"] = 0.0
    started = {**changes, "equilibration.hardness": {"Na": 5.0}}
    with pytest.raises(InputError, match=r"equilibration: expected nothing with model.equilib"):
        train(config_file, overrides=started, progress=False)
    result = train(config_file, overrides=changes, progress=False)
    assert result.validation.forces.rmse > 0
    assert result.validation.charges is None  # though the data have them
    assert not load_model(tmp_path / "out" / "model.safetensors").config.equilibration
