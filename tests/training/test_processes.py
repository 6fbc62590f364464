"""Several processes, through Lightning's own options and launchers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from openmm_nequiplr.training.run import train

from .log import epochs

COMMAND = ["-m", "openmm_nequiplr", "train", "config.yaml", "--no-check"]
LAUNCHERS = {
    "lightning": [],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
}


@pytest.fixture
def config(tmp_path):
    """Five training and three validation structures of different sizes: shares are uneven."""
    from ase import Atoms
    from ase.io import write

    rng = np.random.default_rng(0)
    frames = []
    for number in range(8):
        count = 2 + number % 3
        positions = 2.2 * np.eye(4, 3)[:count] + rng.uniform(-0.3, 0.3, size=(count, 3))
        atoms = Atoms(["O", "Na", "Na", "O"][:count], positions)
        atoms.info["REF_energy"] = float(rng.normal())
        if number != 2:
            atoms.arrays["REF_forces"] = rng.normal(size=(count, 3))
        atoms.info["config_weight"] = 1.0 + number % 2
        frames.append(atoms)
    write(tmp_path / "data.extxyz", frames)
    return {
        "output": str(tmp_path / "out"),
        "model": {"r_max": 3.5, "num_layers": 1, "l_max": 1, "num_features": 2},
        "data": {"train": "data.extxyz", "num_validation": 3},
        "batch_size": 1,
        "validation_batch_size": 1,
        "max_epochs": 3,
        "optimizer": {"lr": 0.02},
        "gradient_clip": 1.0,
        "precision": "double",
        "refit_energy_shifts": False,
        "trainer": {"devices": 2, "strategy": "ddp", "accelerator": "cpu"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_as_one_with_the_same_batches(tmp_path, config, launcher, no_pictures):
    """Loss curve, errors and weights; files are those of the first process."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], *COMMAND],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training on 5 structures") == 1
    rows = epochs(tmp_path / "out")
    assert [row["step"] for row in rows] == ["3", "6", "9"]

    alone = config | {"batch_size": 2, "trainer": {}, "output": str(tmp_path / "alone")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(alone))
    train(tmp_path / "config.yaml", progress=False)
    expected = epochs(tmp_path / "alone")
    for row, other in zip(rows, expected, strict=True):
        for name, value in other.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-6), name
    checkpoints = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("out", "alone")
    ]
    own, other = (each["state_dict"] for each in checkpoints)
    for name, value in other.items():
        assert torch.allclose(own[name], value, rtol=1e-7, atol=1e-10), name
    # The model file, judged in one process, has the errors found by two.
    metrics = yaml.safe_load((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    assert metrics["validation"]["num_structures"] == 3
    for name in ("energy_per_atom", "forces"):
        logged = float(best[f"validation_{name}_rmse"])
        assert metrics["validation"][name]["rmse"] == pytest.approx(logged, rel=1e-3)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {path.name for path in (tmp_path / "alone").iterdir()} | {"learning_curve.png"}
