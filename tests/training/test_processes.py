"""Several processes, through Lightning's own options."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from .log import epochs

SCRIPT = """
import sys
from openmm_nequiplr.training.run import train
if __name__ == "__main__":
    train(sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    """Five training and three validation structures, so that the shares come out uneven."""
    from ase import Atoms
    from ase.io import write

    rng = np.random.default_rng(0)
    frames = []
    for _ in range(8):
        atoms = Atoms("ONa", [[0, 0, 0], [0, 0, 2 + rng.uniform()]])
        atoms.info["REF_energy"] = float(rng.normal())
        atoms.arrays["REF_forces"] = rng.normal(size=(2, 3))
        frames.append(atoms)
    write(tmp_path / "data.extxyz", frames)
    config = {
        "output": str(tmp_path / "out"),
        "model": {"r_max": 3.5, "num_layers": 1, "l_max": 0, "num_features": 2},
        "data": {"train": "data.extxyz", "num_validation": 3},
        "batch_size": 1,
        "validation_batch_size": 1,
        "max_epochs": 2,
        "max_time": 5,
        "refit_energy_shifts": False,
        "trainer": {"devices": 2, "strategy": "ddp", "accelerator": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", "config.yaml"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    rows = epochs(tmp_path / "out")
    # Five structures over two processes are three steps an epoch.
    assert [row["step"] for row in rows] == ["3", "6"]
    # The model file, judged in one process, has the errors found by two.
    metrics = yaml.safe_load((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))[
        "validation"
    ]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    assert metrics["num_structures"] == 3
    for name in ("energy_per_atom", "forces"):
        logged = float(best[f"validation_{name}_rmse"])
        assert metrics[name]["rmse"] == pytest.approx(logged, rel=1e-3)
