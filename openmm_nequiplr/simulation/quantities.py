"""Conversion of user input, with or without units, to plain numbers."""

from __future__ import annotations

from typing import Any

from openmm import unit

from ..checks import is_number
from ..conditions import check_voltage
from ..errors import InputError, describe

FIELD_UNIT = unit.volt / unit.nanometer


def without_unit(name: str, value: Any, of: unit.Unit, expected: str) -> Any:
    """The value of a Quantity in a unit; other values are returned unchanged.

    Raises
    ------
    InputError
        If the units of the Quantity are incompatible.
    """
    if not unit.is_quantity(value):
        return value
    try:
        return value.value_in_unit(of)
    except (TypeError, AttributeError) as error:
        raise InputError(describe(name, value, expected)) from error


def plain_charge(value: Any, name: str = "total_charge") -> float:
    """A charge in e, from a finite number or a Quantity."""
    expected = "a number in units of elementary charge, finite"
    number = without_unit(name, value, unit.elementary_charge, expected)
    if not is_number(number):
        raise InputError(describe(name, value, expected))
    return float(number)


def plain_length(name: str, value: Any, most: float) -> float:
    """A length in Å, from 0 to less than ``most``, from a number or a Quantity."""
    expected = f"a length in Å from 0 to {most:g}"
    number = without_unit(name, value, unit.angstrom, expected)
    if not is_number(number) or not 0.0 <= number < most:
        raise InputError(describe(name, value, expected))
    return float(number)


def plain_voltage(value: Any, electrodes: Any) -> float:
    """A voltage in V, checked by :func:`openmm_nequiplr.conditions.check_voltage`."""
    expected = "a number in V, or a Quantity"
    return check_voltage(without_unit("electrode_voltage", value, unit.volt, expected), electrodes)


def plain_field(value: Any) -> tuple[float, ...]:
    """Components of a field in V/nm, from three finite numbers or a Quantity."""
    expected = "three finite numbers in V/nm, or a Quantity of them"
    number = value
    try:
        if not unit.is_quantity(value) and any(unit.is_quantity(each) for each in value):
            number = unit.Quantity([each.value_in_unit(FIELD_UNIT) for each in value], FIELD_UNIT)
        if unit.is_quantity(number):
            number = number.value_in_unit(FIELD_UNIT)
        values = tuple(number)
    except (TypeError, AttributeError) as error:
        raise InputError(describe("electric_field", value, expected)) from error
    if len(values) != 3 or not all(map(is_number, values)):
        raise InputError(describe("electric_field", value, expected))
    return tuple(map(float, values))
