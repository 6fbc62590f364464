"""Common checks of arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from .errors import InputError, describe, suggestion, unknown

#: Longest time step that is accepted, fs: about the shortest period of a vibration of heavy atoms.
LONGEST_STEP = 20.0


def is_number(value: object) -> bool:
    """Whether a value is a finite real number, and not a bool."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_numbers(name: str, values: object) -> np.ndarray:
    """Convert values to a float64 array; NumPy would drop the units of a Quantity."""
    if hasattr(values, "value_in_unit"):
        raise InputError(describe(name, values, "plain numbers (value_in_unit gives them)"))
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(describe(name, type(values).__name__, f"numbers ({error})")) from error


def check_positive(name: str, value: object, unit: str = "") -> None:
    """Raise :class:`InputError` unless a value is a positive number."""
    if not is_number(value) or not value > 0:  # type: ignore[operator]
        raise InputError(describe(name, value, f"a positive number{unit}"))


def check_timestep(name: str, value: object) -> None:
    """Raise :class:`InputError` unless a value is a time step in fs."""
    if not is_number(value) or not 0 < value <= LONGEST_STEP:  # type: ignore[operator]
        expected = f"a time step in fs, above 0 and at most {LONGEST_STEP:g}"
        raise InputError(describe(name, value, expected))


def check_choice(name: str, value: object, choices: tuple[str | None, ...]) -> None:
    """Raise :class:`InputError` unless a value is one of the given strings (or None)."""
    if not isinstance(value, str | None) or value not in choices:
        known = [each for each in choices if each is not None]
        message = describe(name, value, "one of " + ", ".join(map(repr, known)))
        raise InputError(message + suggestion(value, known))


def check_names(
    given: Iterable[str], known: Sequence[str], reasons: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Raise :class:`InputError` for an unknown option, with the closest known name.

    Parameters
    ----------
    given, known : sequence of str
    reasons : mapping of str to str
        Explanations for unknown options of certain names.
    """
    for name in given:
        if name in reasons:
            raise InputError(f"{name}: {reasons[name]}")
        if name not in known:
            raise InputError(unknown("option", name, known))
