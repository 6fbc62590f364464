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
from .config import TrainingConfig

#: Entries that a resumed training may change: they do not enter what was learned so far. Data files
#: are compared by what is in them.
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
_DATA = ("energy_shifts", "per_species_scales")


def digest(structure: Structure, left_out: Collection[str] = ()) -> str:
    """A fingerprint of atoms and labels of one structure, without those that are left out."""
    found = hashlib.sha256(" ".join(structure.symbols).encode())
    for each in dataclasses.fields(Structure):
        value = getattr(structure, each.name)
        if value is not None and each.name not in ("symbols", "origin", *left_out):
            if each.name == "pbc" and value != SLAB:  # as it was written before there were slabs
                value = bool(value)
            numbers = np.ascontiguousarray(np.asarray(value, dtype=np.float64))
            found.update(each.name.encode())
            found.update(numbers.tobytes())
    return found.hexdigest()


def digest_all(structures: Sequence[Structure], left_out: Collection[str] = ()) -> str:
    """A fingerprint of structures in their order, without labels that are left out."""
    found = (digest(structure, left_out) for structure in structures)
    return hashlib.sha256("".join(found).encode()).hexdigest()


def digest_model(model: NequIPLRPotential) -> str:
    """A fingerprint of configuration and weights of a model."""
    found = hashlib.sha256(json.dumps(model.config.to_dict()).encode())
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def record_of(
    config: TrainingConfig,
    train: Sequence[Structure],
    validation: Sequence[Structure],
    teacher: NequIPLRPotential | None = None,
) -> dict[str, Any]:
    """What a resumed training is compared with: plain values, nested.

    Parameters
    ----------
    config : TrainingConfig
        As the user gave it.
    train, validation : sequence of Structure
    teacher : NequIPLRPotential, optional
        Of ``distill_from``.
    """
    settings = dataclasses.asdict(config)
    data = {name: settings["data"][name] for name in _DATA}
    made = () if config.distill_from is None else ("energy", "forces")  # anew, up to rounding
    data |= {"train": digest_all(train, made), "validation": digest_all(validation, made)}
    kept = {name: value for name, value in settings.items() if name not in _FREE}
    if teacher is not None:
        kept["teacher"] = digest_model(teacher)
    return json.loads(json.dumps({"data": data, **kept}, default=str))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different, one text for each entry.

    Settings that the version of ``before`` did not have are passed over.

    Parameters
    ----------
    before, now : mapping
        From `record_of`.
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
        elif key == "teacher":
            found.append("distill_from (a model with other weights)")
        else:
            found.append(f"{key} {new.get(key)!r} (was {old.get(key)!r})")
    return found


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted keys and values of nested mappings; an empty one is nothing."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{where}{name}.")
        elif value is not None:
            flat[where + name] = value
    return flat


def check_unchanged(before: Mapping[str, Any] | None, now: Mapping[str, Any], accept: bool) -> str:
    """Compare the record of a checkpoint with the present one.

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
        What to say; may be empty.

    Raises
    ------
    InputError
        If something is different and that is not accepted, or if the model is.
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
