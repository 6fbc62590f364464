"""Total charges: of structures, of the training data of models, and assumed ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import InputError, describe, notify

#: Names under which ``atoms.info`` may hold the total charge, the best first.
CHARGE_KEYS = ("total_charge", "charge", "REF_total_charge")
#: Entry of ``atoms.info`` with the charges of groups of atoms.
GROUP_CHARGES = "group_charges"
#: Entry of a model's metadata that lists the total charges of its training structures.
TRAINED = "total_charges"
# A sum of charges of atoms that is off a whole number by more (e) is no total charge.
_WHOLE = 0.01
# Charges (e) that differ by less are the same.
_SAME = 1e-6


def told_charge(atoms: Any) -> float | None:
    """Total charge that a structure tells.

    Parameters
    ----------
    atoms : ase.Atoms or another object with ``info`` or ``total_charge``
        ``info["total_charge"]`` wins over ``info["charge"]`` and ``info["REF_total_charge"]``,
        these over the sum of ``info["group_charges"]``, and this over the sum of initial charges,
        if it is a whole number.

    Returns
    -------
    float or None, e
        ``None`` if it does not tell.

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
    """Total charge of a structure in e, 0 if it does not tell; see :func:`told_charge`."""
    told = told_charge(atoms)
    return 0.0 if told is None else told


def trained_charges(metadata: Mapping[str, str]) -> tuple[float, ...] | None:
    """Total charges (e) of the structures that a model was trained on, ``None`` if unknown."""
    try:
        values = json.loads(metadata[TRAINED])
        return tuple(sorted(float(value) for value in values))
    except (KeyError, TypeError, ValueError):
        return None


def charges_entry(charges: Iterable[float]) -> dict[str, str]:
    """The entry of a model's metadata for the total charges (e) of its training structures."""
    return {TRAINED: json.dumps(sorted({round(float(charge), 6) for charge in charges}))}


def assume_neutral(metadata: Mapping[str, str], where: str) -> float:
    """The charge where none is given: 0, and that is said.

    A model that saw neutral structures alone leaves nothing to assume.

    Parameters
    ----------
    metadata : mapping of str to str
        Of the model.
    where : str
        What does not tell, and how to tell.

    Returns
    -------
    float, e
    """
    if trained_charges(metadata) != (0.0,):
        notify(f"total charge: 0 is assumed, because {where}")
    return 0.0


def check_trained(metadata: Mapping[str, str], charge: float) -> None:
    """Warn of a total charge (e) that a model has never seen, where the model tells."""
    known = trained_charges(metadata)
    if known and all(abs(charge - seen) > _SAME for seen in known):
        shown = ", ".join(f"{seen:g}" for seen in known)
        notify(
            f"total charge: {charge:+g} e, but the model was trained on structures of {shown} e "
            "only: expect no sensible energies"
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
