"""Allowed ranges of settings; values beyond them would exhaust memory or time."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, describe
from ..model import ModelConfig
from .parsing import check_keys

#: Smallest and largest values of entries, by dotted name.
_RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1e6),
    "batch_atoms": (1, 1e9),
    "early_stopping": (1, 1e7),
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
}

# Entries of the model that depend on its elements or are taken from the data.
_OF_DATA = (
    "type_names", "gaussian_widths", "shortest_distances", "avg_num_neighbors", "charge_min",
    "charge_max",
)  # fmt: skip


def check_ranges(config: Any) -> None:
    """Refuse numbers that are out of range.

    Raises
    ------
    InputError
        If a number is out of range; the message names the entry.
    """
    for name, (least, most) in _RANGES.items():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value is not None and not least <= value <= most:
            raise InputError(describe(name, value, f"at least {least:g} and at most {most:g}"))
    _check_model(config.model)


def _check_model(entries: Mapping[str, Any]) -> None:
    """Refuse entries that `ModelConfig` refuses, except those that depend on the data."""
    check_keys(entries, [each.name for each in dataclasses.fields(ModelConfig)], "model.")
    known = {name: value for name, value in entries.items() if name not in _OF_DATA}
    if "r_max" not in known:  # ``start_from`` provides it
        known.pop("r_max_charge", None)
    if entries:
        try:
            ModelConfig.from_dict({"type_names": ("H",), "r_max": 1.0, **known})
        except InputError as error:
            raise InputError(f"model.{error}") from None
