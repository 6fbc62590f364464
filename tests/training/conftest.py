"""A training that takes a second, on a handful of molecules labelled by a random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.io import write

from openmm_nequiplr.training import recorder


@pytest.fixture
def small_model() -> dict[str, Any]:
    """Entries of ``model`` that make one of a few hundred weights."""
    return {
        "r_max": 3.5,
        "num_layers": 1,
        "num_layers_charge": 1,
        "l_max": 1,
        "num_features": 2,
        "invariant_neurons": 4,
        "num_bessels": 4,
        "num_charge_basis": 3,
    }


@pytest.fixture(scope="session")
def data_file(make_model, tmp_path_factory) -> Path:
    """Ten distorted clusters; every second one charged, the labels from a random model."""
    from ase import Atoms

    rng = np.random.default_rng(3)
    teacher = make_model()
    sites = 2.3 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], float)
    frames = []
    for number in range(10):
        atoms = Atoms("NaClONaCl", sites + rng.normal(scale=0.2, size=sites.shape))
        atoms.info["total_charge"] = float(number % 2)
        graph = teacher.build_graph(
            atoms.numbers, atoms.positions, total_charge=atoms.info["total_charge"]
        )
        output = teacher(graph)
        atoms.info["REF_energy"] = output.energy.item() - 50_000.0
        atoms.arrays["REF_forces"] = output.forces.numpy()
        atoms.arrays["REF_charges"] = output.charges.numpy()
        frames.append(atoms)
    path = tmp_path_factory.mktemp("data") / "clusters.extxyz"
    write(path, frames, format="extxyz")
    return path


@pytest.fixture
def config_file(data_file, small_model, tmp_path) -> Path:
    """A configuration that trains in a second."""
    config = {
        "output": str(tmp_path / "out"),
        "model": small_model,
        "data": {"train": str(data_file), "num_validation": 2},
        "loss": {"energy_per_atom": 10.0, "forces": 1.0, "charges": 10.0},
        "optimizer": {"lr": 0.02},
        "schedule": {"name": "plateau", "patience": 1},
        "ema_decay": 0.9,
        "gradient_clip": 5.0,
        "batch_size": 2,
        "max_epochs": 4,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes longer than these trainings."""
    monkeypatch.setattr(recorder.Recorder, "_draw", lambda self: None)
