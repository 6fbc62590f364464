"""Settings without sense: refused by name before data are read."""

from __future__ import annotations

import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.config import load_config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_threads", 0),
        ("num_threads", 1_000_000),
        ("batch_size", 0),
        ("batch_size", 1e30),
        ("batch_size", 2.5),
        ("validation_batch_size", -1),
        ("max_epochs", 1e30),
        ("max_epochs", float("nan")),
        ("seed", -1),
        ("seed", 2**40),
        ("data.split_seed", 2**40),
        ("optimizer.lr", float("inf")),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", "fast"),
        ("optimizer.lr", [0.1]),
        ("loss.forces", -1.0),
        ("loss.forces", float("nan")),
        ("harmonic.copies", 1e9),
        ("model.r_max", 1e30),
        ("model.r_max", -3.0),
        ("model.num_features", 1e6),
        ("model.num_layers", 2000),
        ("gradient_clip", 0),
        ("max_time", -5),
        ("ema_decay", 1.0),
        ("schedule.factor", 2.0),
        ("precision", "half"),
        ("data.units.length", "furlong"),
        ("data.units", "bohr"),
        ("trainer.max_epochs", 3),
        ("optimiser", {}),
    ],
)
def test_refused_by_name(config_file, key, value):
    with pytest.raises(InputError) as caught:
        load_config(config_file, {key: value})
    assert key.split(".")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)
