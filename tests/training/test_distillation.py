"""Distillation: copies are moved and labelled as asked for, teachers trained first, once."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import Labels
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import load_model
from openmm_nequiplr.training.distillation import DistillationConfig, distilled_copies
from openmm_nequiplr.training.run import train

from .log import check_same_training_errors, epochs

SYMBOLS = ("Na", "Cl", "O", "Na")
SITES = 2.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)


@pytest.fixture
def teachers(make_model):
    """Two random models whose energies are far from zero."""
    models = [deepcopy(make_model(num_features=number)) for number in (4, 6)]
    for model in models:
        model.energy_shifts.fill_(-1.0e4)
    return models


def _structure(rng, **others) -> Structure:
    return Structure(SYMBOLS, SITES + rng.normal(scale=0.1, size=(4, 3)), **others)


def _one_by_one(teachers, structure: Structure):
    """The slow twin of the labels: each model on the structure as its user would ask for it."""
    outputs = [
        model(
            model.build_graph(
                structure.symbols,
                structure.positions,
                cell=structure.cell,
                pbc=structure.pbc,
                total_charge=structure.total_charge,
            ),
            compute_stress=structure.pbc,
        )
        for model in teachers
    ]

    def mean(name):
        return sum(getattr(o, name).detach().numpy() for o in outputs) / len(outputs)

    return mean


def test_labels_are_the_mean_of_the_teachers(teachers, rng):
    structures = [_structure(rng, total_charge=charge, energy=1.0) for charge in (0.0, 1.0)]
    config = DistillationConfig(models=("a", "b"), copies=2, displacement=0.05, weight=0.4)
    copies = distilled_copies(structures, teachers, config, seed=3)
    assert len(copies) == 4
    for copy, own in zip(copies, structures * 2, strict=True):
        mean = _one_by_one(teachers, copy)
        assert copy.energy == pytest.approx(mean("energy")[0], abs=1e-7)
        assert copy.energy < -3.0e4  # with the energies of the elements
        assert copy.forces == pytest.approx(mean("forces"), abs=1e-9)
        assert copy.charges == pytest.approx(mean("charges"), abs=1e-9)
        assert copy.charges.sum() == pytest.approx(own.total_charge, abs=1e-9)
        assert copy.dipole == pytest.approx(mean("dipole")[0], abs=1e-9)
        assert (copy.weight, copy.synthetic, copy.stress) == (0.4, True, None)
    members = [_one_by_one([teacher], copies[0])("forces") for teacher in teachers]
    assert np.abs(members[0] - members[1]).max() > 1e-3  # the mean is none of them
    moved = [c.positions - s.positions for c, s in zip(copies, structures * 2, strict=True)]
    assert np.std(moved) == pytest.approx(0.05, rel=0.3)
    again = distilled_copies(structures, teachers, config, seed=3)
    assert all((a.positions == c.positions).all() for a, c in zip(again, copies, strict=True))


def test_stress_of_crystals(teachers, rng):
    cell = 6.0 * np.eye(3)
    with_stress = _structure(rng, cell=cell, pbc=True, stress=np.zeros((3, 3)))
    structures = [with_stress, replace(with_stress, stress=None)]
    config = DistillationConfig(models=("a",), copies=1, displacement=0.05)
    first, second = distilled_copies(structures, teachers, config, seed=0)
    assert first.stress == pytest.approx(_one_by_one(teachers, first)("stress")[0], abs=1e-10)
    assert np.abs(first.stress).max() > 1e-4
    assert first.dipole is None
    assert second.dipole is None
    assert second.stress is None


def test_displacements_of_elements(teachers, rng):
    structures = [_structure(rng) for _ in range(30)]
    config = DistillationConfig(models=("a",), copies=1.5, displacement={"O": 0.2, "Na": 0.02})
    copies = distilled_copies(structures, teachers, config, seed=5)
    assert len(copies) == 45
    moved = np.stack(
        [c.positions - s.positions for c, s in zip(copies[:30], structures, strict=True)]
    )
    assert np.std(moved[:, 2]) == pytest.approx(0.2, rel=0.3)
    assert np.std(moved[:, [0, 3]]) == pytest.approx(0.02, rel=0.3)
    assert not moved[:, 1].any()
    with pytest.raises(InputError, match=r"displacement: expected elements among Cl, Na, O.*'Au'"):
        distilled_copies(structures, teachers, replace(config, displacement={"Au": 0.1}), seed=5)


def test_teachers_without_charges_give_none(make_model, teachers, rng):
    plain = make_model(equilibration=False)
    config = DistillationConfig(models=("a",), copies=1)
    (copy,) = distilled_copies([_structure(rng)], [plain], config, seed=0)
    assert copy.charges is None
    assert copy.dipole is None
    assert copy.forces is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": (1, 1)}, r"distillation\.seeds: expected different whole"),
        ({"seeds": (-1,)}, r"distillation\.seeds"),
        ({"copies": 0.0}, r"distillation\.copies"),
        ({"weight": -1.0}, r"distillation\.weight"),
        ({"displacement": 0.0}, r"distillation\.displacement: expected a number above 0, got 0"),
        ({"displacement": {"O": "far"}}, r"distillation\.displacement\.O"),
    ],
)
def test_settings_are_checked(given, message):
    with pytest.raises(InputError, match=message):
        DistillationConfig(**given)


def test_synthetic_labels_are_no_reference(rng):
    """They stay in the labels for the loss, and are unknown in those for the errors."""
    known = {"energy": 1.0, "forces": np.ones((4, 3)), "charges": np.ones(4), "dipole": np.ones(3)}
    one, other = _structure(rng, **known), _structure(rng, **known, synthetic=True)
    labels = Labels.collate([Labels.of(one), Labels.of(other)])
    judged = labels.of_reference()
    for name, rows in (("energy", 1), ("forces", 4), ("charges", 4), ("dipole", 1)):
        assert torch.isfinite(getattr(labels, name)).all()
        assert torch.isfinite(getattr(judged, name)[:rows]).all()
        assert torch.isnan(getattr(judged, name)[rows:]).all()
    assert judged.stress is None
    plain = Labels.of(one)
    assert plain.of_reference() is plain


@pytest.mark.usefixtures("no_pictures")
def test_a_student_learns_from_its_teachers(config_file, tmp_path, capsys):
    """One command trains two teachers and the student; nothing is done twice."""
    given = {"distillation": {"seeds": [3, 4], "copies": 1.5}, "max_epochs": 2}
    result = train(config_file, overrides=given)
    shown = capsys.readouterr().out
    order = ["teachers/seed_3", "teachers/seed_4", f"output: {tmp_path / 'out'}\n"]
    assert sorted(order, key=shown.index) == order
    taught = [tmp_path / f"out/teachers/seed_{number}/model.safetensors" for number in (3, 4)]
    models = [load_model(path) for path in (result.model_path, *taught)]
    weights = [next(model.parameters()) for model in models]
    assert not any(torch.equal(weights[0], other) for other in weights[1:])
    record = tmp_path / "out/teachers/seed_3/config.yaml"
    assert yaml.safe_load(record.read_text())["distillation"] is None
    made = (record.parent / "metrics.json").stat().st_mtime_ns
    (tmp_path / "out/last.ckpt").unlink()
    train(config_file, overrides=given)
    assert "was trained before" in capsys.readouterr().out
    assert (record.parent / "metrics.json").stat().st_mtime_ns == made


@pytest.mark.usefixtures("no_pictures")
def test_copies_count_in_the_loss_and_not_in_the_errors(config_file, tmp_path):
    """A teacher that is far off changes the weights, but hardly the errors of the first epoch."""
    teacher = train(config_file, overrides={"max_epochs": 1}, progress=False).model_path
    rows, weights = [], []
    for number, weight in enumerate((1e-9, 10.0)):
        settings = {"models": [str(teacher)], "copies": 1, "weight": weight}
        output = tmp_path / f"student_{number}"
        given = {"distillation": settings, "max_epochs": 1, "batch_size": 16, "output": str(output)}
        result = train(config_file, overrides=given, progress=False)
        model = load_model(result.model_path)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        rows.append(epochs(output)[0])
    assert not torch.allclose(weights[0], weights[1], atol=1e-6)
    check_same_training_errors(*rows)  # one step: both judge the same random weights


@pytest.mark.usefixtures("no_pictures")
def test_interrupted_teachers_go_on(config_file, tmp_path):
    given = {"distillation": {"seeds": [3], "copies": 1}, "max_epochs": 2}
    whole = next(
        load_model(train(config_file, overrides=given, progress=False).model_path).parameters()
    )
    teacher = tmp_path / "out/teachers/seed_3"
    before = (teacher / "metrics.csv").read_text()
    (teacher / "metrics.json").unlink()  # as if it had been stopped before its end
    (tmp_path / "out/last.ckpt").unlink()
    again = train(config_file, overrides=given, resume=True, progress=False)
    assert (teacher / "metrics.csv").read_text() == before
    assert torch.allclose(next(load_model(again.model_path).parameters()), whole, atol=1e-7)
    changed = {**given, "batch_size": 3}
    (tmp_path / "out/last.ckpt").unlink()
    with pytest.raises(InputError, match=r"distillation\.seeds: expected that of"):
        train(config_file, overrides=changed, progress=False)
