"""What a training wrote into its log."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest


def epochs(output: Path) -> list[dict[str, str]]:
    """A row for each epoch, without the time."""
    with open(output / "metrics.csv", newline="") as handle:
        return [{k: v for k, v in r.items() if k != "minutes"} for r in csv.DictReader(handle)]


def check_same_training_errors(first: dict[str, str], second: dict[str, str]) -> None:
    """Energies, forces and charges of two epochs are off alike."""
    errors = [key for key in first if key.startswith("train_") and key.endswith("_rmse")]
    assert len(errors) == 3
    for key in errors:
        assert float(second[key]) == pytest.approx(float(first[key]), rel=1e-4)
