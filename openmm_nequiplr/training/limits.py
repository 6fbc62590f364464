"""Largest values of settings: what is beyond them is a slip, and would take all memory or hang."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, describe

#: Smallest and largest value of entries, by their dotted names.
_RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1e6),
    "validation_batch_size": (1, 1e6),
    "validation_interval": (1, 1e7),
    "max_epochs": (1, 1e7),
    "num_threads": (1, max(64, 4 * (os.cpu_count() or 1))),
    "seed": (0, 2**32 - 1),
    "data.split_seed": (0, 2**32 - 1),
    "schedule.warmup_epochs": (0, 1e7),
    "equilibration.charge_epochs": (0, 1e7),
    "harmonic.copies": (0, 1e4),
    "harmonic.cutoff": (0, 100),
    "model.r_max": (0, 100),
    "model.r_max_charge": (0, 100),
    "model.l_max": (0, 12),
    "model.num_layers": (0, 100),
    "model.num_layers_charge": (0, 100),
    "model.num_features": (1, 10_000),
    "model.num_bessels": (1, 10_000),
    "model.num_charge_basis": (1, 10_000),
    "model.invariant_neurons": (1, 100_000),
    "model.invariant_layers": (0, 100),
}


def check_ranges(config: Any) -> None:
    """Refuse numbers that are out of range.

    Parameters
    ----------
    config : TrainingConfig
        Entries of ``model`` that are not numbers are left to `ModelConfig`.

    Raises
    ------
    InputError
        Naming the entry.
    """
    for name, (least, most) in _RANGES.items():
        value: Any = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not least <= value <= most:
            raise InputError(describe(name, value, f"a number from {least:g} to {most:g}"))
