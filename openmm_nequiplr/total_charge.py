"""Total charges of structures and of training data, and the default for unspecified charges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import InputError, describe, notify

#: Entries of ``atoms.info`` with the total charge, in order of precedence.
CHARGE_KEYS = ("total_charge", "charge", "REF_total_charge")
#: Entry of ``atoms.info`` with the charges of groups of atoms.
GROUP_CHARGES = "group_charges"
#: Entry of a model's metadata that lists the total charges of its training structures.
TRAINED = "total_charges"
# Largest deviation (e) from an integer of a sum of initial charges used as the total charge.
_WHOLE = 0.01
# Tolerance of equal charges, e.
_SAME = 1e-6


def told_charge(atoms: Any) -> float | None:
    """Total charge specified by a structure.

    Parameters
    ----------
    atoms : ase.Atoms or another object with ``info`` or ``total_charge``
        The first of these that exists is used: ``info["total_charge"]``, ``info["charge"]``,
        ``info["REF_total_charge"]``, the sum of ``info["group_charges"]``, the attribute
        ``total_charge``, and the sum of initial charges if it is an integer.

    Returns
    -------
    float or None, e
        ``None`` if it is not specified.

    Raises
    ------
    InputError
        If an entry is not one finite number.
    """
    info = getattr(atoms, "info", {})
    for key in CHARGE_KEYS:
        if info.get(key) is not None:
            return _one_number(f"atoms.info[{key!r}]", info[key])
    if info.get(GROUP_CHARGES) is not None:
        return _one_number(f"sum of atoms.info[{GROUP_CHARGES!r}]", np.sum(info[GROUP_CHARGES]))
    if getattr(atoms, "total_charge", None) is not None:
        return _one_number("total_charge", atoms.total_charge)
    if not getattr(atoms, "has", lambda name: False)("initial_charges"):
        return None
    charges = np.asarray(atoms.get_initial_charges(), dtype=np.float64)
    total = float(charges.sum())
    if not charges.any() or not abs(total - round(total)) < _WHOLE:
        return None
    notify(f"total charge: {round(total):+d} e, the sum of the structure's initial charges")
    return float(round(total))


def total_charge_of(atoms: Any) -> float:
    """Total charge of a structure, e; 0 if it is not specified (:func:`told_charge`)."""
    told = told_charge(atoms)
    return 0.0 if told is None else told


def trained_charges(metadata: Mapping[str, str]) -> tuple[float, ...] | None:
    """Total charges (e) of the training structures of a model; ``None`` if unknown."""
    try:
        values = json.loads(metadata[TRAINED])
        return tuple(sorted(float(value) for value in values))
    except (KeyError, TypeError, ValueError):
        return None


def charges_entry(charges: Iterable[float]) -> dict[str, str]:
    """Entry in a model's metadata for the total charges (e) of its training structures."""
    return {TRAINED: json.dumps(sorted({round(float(charge), 6) for charge in charges}))}


def assume_neutral(metadata: Mapping[str, str], where: str) -> float:
    """Return the default charge of 0, with a note unless all training structures were neutral.

    Parameters
    ----------
    metadata : mapping of str to str
        Metadata of the model.
    where : str
        End of the note: which input lacks the charge, and how to specify it.

    Returns
    -------
    float, e
    """
    if trained_charges(metadata) != (0.0,):
        notify(f"total charge: 0 is assumed, because {where}")
    return 0.0


def check_trained(metadata: Mapping[str, str], charge: float) -> None:
    """Warn of a total charge (e) that no training structure had, if these are recorded."""
    known = trained_charges(metadata)
    if known and all(abs(charge - seen) > _SAME for seen in known):
        shown = ", ".join(f"{seen:g}" for seen in known)
        notify(
            f"total charge: {charge:+g} e, but the model was trained on structures of {shown} e "
            "only: the energies may be meaningless"
        )


def say_contradictions(atoms: Any, told: float | None) -> None:
    """Say which entries contradict the charge of :func:`told_charge`, or seem to tell one unread.

    Parameters
    ----------
    atoms : ase.Atoms or another object with ``info``
    told : float or None, e
    """
    info = getattr(atoms, "info", {})
    if told is None:
        likely = [key for key in info if _like_charge(str(key)) and np.ndim(info[key]) == 0]
        if likely:
            shown = ", ".join(f"{key} = {info[key]}" for key in likely)
            notify(f"total charge: {shown} is not read; {', '.join(CHARGE_KEYS)} are")
        return
    others = {key: _one_number(key, info[key]) for key in CHARGE_KEYS if info.get(key) is not None}
    if getattr(atoms, "has", lambda name: False)("initial_charges"):
        total = float(np.sum(atoms.get_initial_charges()))
        if abs(total - round(total)) < _WHOLE and np.any(atoms.get_initial_charges()):
            others["the sum of initial charges"] = round(total)
    off = [f"{name} = {charge:g}" for name, charge in others.items() if abs(charge - told) > _SAME]
    if off:
        notify(f"total charge: {told:+g} e is taken, which {' and '.join(off)} contradict")


def _like_charge(key: str) -> bool:
    return "charge" in key.lower() or key.lower() in ("q", "qtot", "q_tot", "chg")


def _one_number(name: str, value: Any) -> float:
    try:
        charge = float("nan") if isinstance(value, bool | np.bool_) else float(value)
    except (TypeError, ValueError, OverflowError):
        charge = float("nan")
    if not np.isfinite(charge):
        raise InputError(describe(name, value, "one finite number (e)"))
    return charge
