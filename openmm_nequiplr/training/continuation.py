"""Comparison of a resumed training with its record of data and settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..boundaries import SLAB
from ..data.structure import Structure
from ..errors import InputError, describe
from ..model import NequIPLRPotential
from ..model.io import model_digest
from .config import TrainingConfig

#: Entries that a resumed training may change, because they do not affect what was learned so far.
#: Data files are compared by content.
_FREE = frozenset(
    {
        "data",
        "early_stopping",
        "max_epochs",
        "max_time",
        "num_threads",
        "output",
        "trainer",
        "validation_batch_size",
        "validation_interval",
    }
)
#: Entries of the models whose fingerprints are recorded.
_MODELS = {"teacher": "distill_from", "start": "start_from"}
_DATA = ("energy_shifts", "per_species_scales")


def digest(structure: Structure, left_out: Collection[str] = ()) -> str:
    """Fingerprint of the atoms and labels of one structure, without the labels in ``left_out``."""
    found = hashlib.sha256(" ".join(structure.symbols).encode())
    for each in dataclasses.fields(Structure):
        value = getattr(structure, each.name)
        if value is not None and each.name not in ("symbols", "origin", *left_out):
            if each.name == "pbc" and value != SLAB:  # as written by versions without slabs
                value = bool(value)
            numbers = np.ascontiguousarray(np.asarray(value, dtype=np.float64))
            found.update(each.name.encode())
            found.update(numbers.tobytes())
    return found.hexdigest()


def digest_all(structures: Sequence[Structure], left_out: Collection[str] = ()) -> str:
    """Fingerprint of a sequence of structures, without the labels in ``left_out``."""
    found = (digest(structure, left_out) for structure in structures)
    return hashlib.sha256("".join(found).encode()).hexdigest()


def record_of(
    config: TrainingConfig,
    train: Sequence[Structure],
    validation: Sequence[Structure],
    teacher: NequIPLRPotential | None = None,
    start: NequIPLRPotential | None = None,
) -> dict[str, Any]:
    """Record of data and settings with which a resumed training is compared: nested plain values.

    Parameters
    ----------
    config : TrainingConfig
        As specified by the user.
    train, validation : sequence of Structure
    teacher : NequIPLRPotential, optional
        The model of ``distill_from``.
    start : NequIPLRPotential, optional
        The model of ``start_from``.
    """
    settings = dataclasses.asdict(config)
    data = {name: settings["data"][name] for name in _DATA}
    made = () if config.distill_from is None else ("energy", "forces")  # recomputed, with rounding
    data |= {"train": digest_all(train, made), "validation": digest_all(validation, made)}
    kept = {name: value for name, value in settings.items() if name not in _FREE}
    for name, model in (("teacher", teacher), ("start", start)):
        if model is not None:
            kept[name] = model_digest(model)
    return json.loads(json.dumps({"data": data, **kept}, default=str))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Descriptions of the differences between two records, one for each entry.

    Settings that the version of ``before`` did not have are ignored.

    Parameters
    ----------
    before, now : mapping
        Results of `record_of`.
    """
    old, new = _flat(before), _flat(now)
    found = []
    for key in dict.fromkeys([*new, *old]):
        section, _, name = key.partition(".")
        settings = before.get(section) or {}
        free_form = section == "model" or "." in name
        known = section in before and (not name or free_form or name in settings)
        if not known or old.get(key) == new.get(key):
            continue
        if key in ("data.train", "data.validation"):
            found.append(f"{key} (other structures, labels or split)")
        elif key in _MODELS:
            found.append(f"{_MODELS[key]} (a model with other weights or settings)")
        else:
            found.append(f"{key} {new.get(key)!r} (was {old.get(key)!r})")
    return found


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted keys and values of nested mappings; empty mappings are omitted."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{where}{name}.")
        elif value is not None:
            flat[where + name] = value
    return flat


def check_unchanged(before: Mapping[str, Any] | None, now: Mapping[str, Any], accept: bool) -> str:
    """Compare the record of a checkpoint with the current one.

    Parameters
    ----------
    before : mapping or None
        None in checkpoints of earlier versions.
    now : mapping
    accept : bool
        Whether to continue with other data or settings.

    Returns
    -------
    str
        Message to print; may be empty.

    Raises
    ------
    InputError
        If the records differ and ``accept`` is false, or if the models differ.
    """
    if before is None:
        return "resume: the checkpoint does not tell its data and settings: not compared"
    found = changes(before, now)
    if not found:
        return ""
    model = [
        each for each in found if each.startswith(("model.", "start_from", "precision", "freeze"))
    ]
    if model:
        expected = "the model that was begun"
        raise InputError(describe("resume", "; ".join(model), expected))
    if not accept:
        expected = "data and settings as at the beginning (--accept-changes goes on with others)"
        raise InputError(describe("resume", "; ".join(found), expected))
    return "resume: going on with " + "; ".join(found)
