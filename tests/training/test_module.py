"""A training module: the average of its weights, its steps, and the response of charges."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from ase.io import read, write
from torch import nn

from openmm_nequiplr.data import structure_from_atoms
from openmm_nequiplr.data.dataset import GraphDataset
from openmm_nequiplr.training.config import DataConfig, LossConfig, TrainingConfig
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.module import TrainingModule, averaged
from openmm_nequiplr.training.run import train


def test_average_follows_its_definition():
    model = nn.Linear(2, 2).double()
    nn.init.constant_(model.weight, 1.0)
    average = averaged(model, decay=0.9)
    expected = 1.0
    for n in range(1, 200):
        nn.init.constant_(model.weight, float(n))
        average.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    weight = average.module.weight
    torch.testing.assert_close(weight, torch.full_like(weight, expected))
    assert float(model.weight[0, 0]) == 199.0
    assert not weight.requires_grad
    other = averaged(nn.Linear(2, 2).double(), decay=0.9)
    other.load_state_dict(average.state_dict())
    for each in (average, other):
        each.update_parameters(model)
    assert torch.equal(weight, other.module.weight)


def test_stresses_are_computed_where_they_are_known(make_model, crystal):
    """Validation structures in a cell need none although the loss has a weight for them."""
    model = make_model()
    data = GraphDataset([replace(structure_from_atoms(crystal), energy=0.0)], model)
    config = TrainingConfig(
        DataConfig(("x",)), {"r_max": 3.5}, loss=LossConfig(stress=1.0), ema_decay=0.0
    )
    module = TrainingModule(model, config, data, data)
    module.on_validation_epoch_start()
    module.validation_step(data[0], 0)
    assert list(module._validation_sums.errors()) == ["energy_per_atom"]


@pytest.mark.usefixtures("no_pictures")
def test_a_response_is_learned(make_model, config_file, data_file, tmp_path):
    """Labels of a model: the error falls well below that of a constant."""
    teacher, frames = make_model(), read(data_file, ":5")
    for atoms in frames:
        charge = atoms.info["total_charge"]
        found = teacher(
            teacher.build_graph(atoms.numbers, atoms.positions, total_charge=charge),
            compute_response=True,
        )
        atoms.arrays["born_charges"] = found.born_charges.numpy().reshape(-1, 9)
        atoms.info["polarizability"] = found.polarizability[0].numpy()
    write(tmp_path / "response.extxyz", frames)
    overrides = {
        "data.train": str(tmp_path / "response.extxyz"),
        "loss": {
            "energy_per_atom": 0.0,
            "forces": 0.0,
            "born_charges": 1.0,
            "polarizability": 5.0,
            "charges": 0.0,
        },
        "max_epochs": 60,
    }
    train(config_file, overrides=overrides, progress=False)
    with open(tmp_path / "out" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = evaluate_model(
        tmp_path / "out" / "model.safetensors", tmp_path / "response.extxyz", verbose=False
    )
    for name in ("born_charges", "polarizability"):
        first, last = (float(rows[k][f"train_{name}_rmse"]) for k in (0, -1))
        assert last < 0.7 * first
        assert getattr(errors, name).rmse < 0.7 * getattr(errors, name).data_std
