"""Checks of arguments that many functions share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from .errors import InputError, describe, suggestion, unknown


def is_number(value: object) -> bool:
    """Whether a value is a finite real number, and no truth value."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def check_positive(name: str, value: object, unit: str = "") -> None:
    """Refuse what is not a positive number.

    Raises
    ------
    InputError
    """
    if not is_number(value) or not value > 0:  # type: ignore[operator]
        raise InputError(describe(name, value, f"a positive number{unit}"))


def check_choice(name: str, value: object, choices: tuple[str | None, ...]) -> None:
    """Refuse what is not one of a few texts (or None).

    Raises
    ------
    InputError
    """
    if not isinstance(value, str | None) or value not in choices:
        known = [each for each in choices if each is not None]
        message = describe(name, value, "one of " + ", ".join(map(repr, known)))
        raise InputError(message + suggestion(value, known))


def check_names(
    given: Iterable[str], known: Sequence[str], reasons: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuse options that there are not, and name the closest one that there is.

    Parameters
    ----------
    given, known : sequence of str
    reasons : mapping of str to str
        Why there is no option of that name, or what takes its place.

    Raises
    ------
    InputError
    """
    for name in given:
        if name in reasons:
            raise InputError(f"{name}: {reasons[name]}")
        if name not in known:
            raise InputError(unknown("option", name, known))
