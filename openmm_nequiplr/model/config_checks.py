"""Checks of a model configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ase.data import atomic_numbers

from ..checks import is_number
from ..errors import InputError, describe

if TYPE_CHECKING:
    from .config import ModelConfig

_ACTIVATION_NAMES = ("silu", "ssp", "tanh", "abs")
_ODD_ACTIVATIONS = ("tanh", "abs")
# Smallest and largest counts: beyond any useful value, but within the memory of a machine.
_COUNTS = {
    "num_layers": (0, 20), "num_layers_charge": (0, 20), "l_max": (0, 6), "num_features": (1, 2048),
    "num_bessels": (1, 256), "invariant_layers": (0, 10), "invariant_neurons": (1, 4096),
    "num_charge_basis": (1, 1024),
}  # fmt: skip
_LONGEST_CUTOFF, _LARGEST_CHARGE, _LARGEST_POWER, _LARGEST = 50.0, 1000.0, 100.0, 1e9
_MOST_WEIGHTS = 3e8


def check(config: ModelConfig) -> None:
    """Check the entries of a configuration, and convert sequences and numbers to their types.

    Raises
    ------
    InputError
        If an entry is invalid.
    """
    _freeze_sequences(config)
    _check_types(config)
    _check_distances(config)
    _check_numbers(config)
    _check_choices(config)


def _freeze_sequences(config: ModelConfig) -> None:
    names = ("type_names", "gaussian_widths", "nonlinearity_scalars", "nonlinearity_gates")
    for name in names:
        value = getattr(config, name)
        if value is None and name == "gaussian_widths":
            continue
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise InputError(describe(name, value, "a list"))
        object.__setattr__(config, name, tuple(value))


def _check_types(config: ModelConfig) -> None:
    names = config.type_names
    if not names or any(not isinstance(s, str) or atomic_numbers.get(s, 0) < 1 for s in names):
        raise InputError(describe("type_names", names, "element symbols"))
    if len(set(names)) != len(names):
        raise InputError(describe("type_names", names, "each element once"))
    widths = config.gaussian_widths
    if widths is None:
        return
    good = all(is_number(x) and 0 < x < _LONGEST_CUTOFF for x in widths)
    if len(widths) != len(names) or not good:
        expected = f"{len(names)} positive widths in Å, one for each type"
        raise InputError(describe("gaussian_widths", widths, expected))
    object.__setattr__(config, "gaussian_widths", tuple(map(float, widths)))


def _check_distances(config: ModelConfig) -> None:
    table = config.shortest_distances
    if table is None:
        return
    count = len(config.type_names)
    expected = f"a symmetric table of {count} × {count} positive distances in Å"
    try:
        rows = tuple(tuple(float(value) for value in row) for row in table)
    except (TypeError, ValueError):
        raise InputError(describe("shortest_distances", table, expected)) from None
    square = len(rows) == count and all(len(row) == count for row in rows)
    if not square or rows != tuple(zip(*rows, strict=True)) or not min(map(min, rows)) > 0:
        raise InputError(describe("shortest_distances", table, expected))
    object.__setattr__(config, "shortest_distances", rows)


def _check_numbers(config: ModelConfig) -> None:
    for name, (least, most) in _COUNTS.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            expected = f"a whole number of at least {least} and at most {most}"
            raise InputError(describe(name, value, expected))
    lengths = ["r_max", *([] if config.r_max_charge is None else ["r_max_charge"])]
    for name in lengths:
        expected = f"a positive number (Å) of at most {_LONGEST_CUTOFF:g}"
        _check_real(config, name, lambda x: 0 < x <= _LONGEST_CUTOFF, expected)
    bound = [] if config.electronegativity_bound is None else ["electronegativity_bound"]
    for name in ("avg_num_neighbors", "coulomb_constant", *bound):
        _check_real(
            config, name, lambda x: 0 < x <= _LARGEST, f"a positive number up to {_LARGEST:g}"
        )
    _check_real(config, "hardness_min", lambda x: 0 <= x <= _LARGEST, "a number of at least 0")
    power = f"a number of at least 2 and at most {_LARGEST_POWER:g}"
    _check_real(config, "polynomial_cutoff_p", lambda x: 2 <= x <= _LARGEST_POWER, power)
    charge = f"a number (e) of at most {_LARGEST_CHARGE:g} in size"
    _check_real(config, "charge_min", lambda x: abs(x) <= _LARGEST_CHARGE, charge)
    more = f"more than charge_min and at most {_LARGEST_CHARGE:g}"
    _check_real(config, "charge_max", lambda x: config.charge_min < x <= _LARGEST_CHARGE, more)
    if config.num_weights > _MOST_WEIGHTS:
        got = f"num_features, l_max and others that lead to about {config.num_weights:.0e}"
        expected = f"at most {_MOST_WEIGHTS:.0e} weights"
        raise InputError(f"model configuration: expected {expected}, got {got}")


def _check_real(
    config: ModelConfig, name: str, good: Callable[[float], bool], expected: str
) -> None:
    value = getattr(config, name)
    if not is_number(value) or not good(value):
        raise InputError(describe(name, value, expected))
    object.__setattr__(config, name, float(value))


def _check_choices(config: ModelConfig) -> None:
    if config.electrostatic_energy not in ("qeq", "coulomb"):
        expected = "'qeq' or 'coulomb'"
        raise InputError(describe("electrostatic_energy", config.electrostatic_energy, expected))
    flags = (each.name for each in dataclasses.fields(config) if each.type == "bool")
    for name in flags:
        if not isinstance(getattr(config, name), bool):
            raise InputError(describe(name, getattr(config, name), "true or false"))
    if config.effective_charges and (config.legacy_periodic or config.legacy_nonperiodic):
        raise InputError(describe("effective_charges", True, "false in a converted model"))
    if not config.equilibration:
        _check_short_range(config)
    for name in ("nonlinearity_scalars", "nonlinearity_gates"):
        value = getattr(config, name)
        if len(value) != 2 or any(v not in _ACTIVATION_NAMES for v in value):
            expected = f"two of {_ACTIVATION_NAMES}, for even and odd scalars"
            raise InputError(describe(name, value, expected))
        if value[1] not in _ODD_ACTIVATIONS:
            expected = f"an even or odd function ({_ODD_ACTIVATIONS}) for odd scalars"
            raise InputError(describe(name, value, expected))


def _check_short_range(config: ModelConfig) -> None:
    if config.r_max_charge not in (None, config.r_max):
        expected = "nothing, or r_max, in a model without equilibration"
        raise InputError(describe("r_max_charge", config.r_max_charge, expected))
    if config.num_layers + config.num_layers_charge < 1:
        expected = "at least one layer, with num_layers_charge, in a model without equilibration"
        raise InputError(describe("num_layers", config.num_layers, expected))
    for name in (
        "effective_charges", "shared_features", "legacy_periodic", "legacy_nonperiodic",
    ):  # fmt: skip
        if getattr(config, name):
            raise InputError(describe(name, True, "false in a model without equilibration"))
