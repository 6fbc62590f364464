"""Validated dataclasses from the nested mappings of a YAML file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ..errors import InputError, describe, unknown

_T = TypeVar("_T")


def check_keys(
    given: Mapping[str, Any],
    valid: list[str],
    where: str,
    places: Mapping[str, str] | None = None,
) -> None:
    """Refuse unknown keys. The message suggests the closest valid key, or the right section.

    Parameters
    ----------
    given : mapping
    valid : list of str
    where : str
        Name of the section, followed by a dot; empty at the top level.
    places : mapping of str to str, optional
        Keys and their dotted names in other sections.

    Raises
    ------
    InputError
        If a key is unknown.
    """
    for key in given:
        if key not in valid:
            meant = (places or {}).get(key)
            raise InputError(unknown("key", key, valid, where.rstrip("."), meant))


def places_of(sections: Mapping[str, type]) -> dict[str, str]:
    """Dotted names of the keys that occur in only one section.

    Parameters
    ----------
    sections : mapping of str to type
        Dotted names of sections and their dataclasses; the name of the top level is empty.
    """
    found = [(f.name, f"{name}.{f.name}".lstrip(".")) for name, kind in sections.items()
             for f in fields(kind)]  # fmt: skip
    count = Counter(key for key, _ in found)
    return {key: place for key, place in found if count[key] == 1}


def override(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    """Replace one entry of nested mappings in place; a mapping is merged key by key."""
    for key in keys[:-1]:
        if raw.get(key) is None:
            raw[key] = {}
        raw = raw[key]
        if not isinstance(raw, dict):
            raise InputError(describe("overrides", ".".join(keys), "a path through sections"))
    if isinstance(value, Mapping) and isinstance(raw.get(keys[-1]), dict):
        for key, each in value.items():
            override(raw, [keys[-1], *str(key).split(".")], each)
    else:
        raw[keys[-1]] = value


def build(
    kind: type[_T],
    given: Any,
    sections: Mapping[str, type],
    where: str = "",
    places: Mapping[str, str] | None = None,
) -> _T:
    """Create a dataclass from a mapping.

    Parameters
    ----------
    kind : type
        The dataclass; its annotations are the types of the values.
    given : mapping
        As read from YAML.
    sections : mapping of str to type
        Fields at any level that are dataclasses, or tuples of strings and dataclasses.
    where : str
        Prefix of names in error messages.
    places : mapping of str to str, optional
        Keys and their dotted names in other sections.

    Raises
    ------
    InputError
        If a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(given, Mapping):
        raise InputError(describe(where.rstrip(".") or "configuration", given, "a mapping"))
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    check_keys(given, list(known), where, places)
    values: dict[str, Any] = {}
    for name, each in known.items():
        if name not in given:
            if each.default is MISSING and each.default_factory is MISSING:
                raise InputError(describe(where + name, "nothing", "an entry"))
            continue
        value = given[name]
        if name in sections and str(each.type).startswith("tuple"):
            items = value if isinstance(value, list | tuple) else [] if value is None else [value]
            values[name] = tuple(
                build(sections[name], item, sections, f"{where}{name}.", places)
                if isinstance(item, Mapping)
                else str(item)
                for item in items
            )
        elif name in sections:
            values[name] = build(sections[name], value or {}, sections, f"{where}{name}.", places)
        else:
            values[name] = _convert(where + name, str(each.type), value)
    return kind(**values)


def _convert(where: str, annotation: str, value: Any) -> Any:
    """Convert a YAML value to its annotated type; YAML reads 1e-3 as a string."""
    if annotation.startswith("tuple"):
        items = [] if value is None else value if isinstance(value, (list, tuple)) else [value]
        numbers = "float" in annotation
        return tuple(_number(where, i, whole=False) if numbers else str(i) for i in items)
    if value is None and "None" in annotation:
        return None
    if annotation.startswith("Mapping"):
        if not isinstance(value, Mapping):
            raise InputError(describe(where, value, "a mapping"))
        return dict(value)
    if annotation.startswith("str"):
        if not isinstance(value, (str, int, float)):
            raise InputError(describe(where, value, "text"))
        return str(value)
    if annotation == "bool":
        if not isinstance(value, bool):
            raise InputError(describe(where, value, "true or false"))
        return value
    return _number(where, value, whole="float" not in annotation)


def _number(where: str, value: Any, whole: bool) -> int | float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise InputError(describe(where, value, "a number")) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(describe(where, value, "a number"))
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(describe(where, value, "a finite number"))
    if whole:
        if value != int(value):
            raise InputError(describe(where, value, "a whole number"))
        return int(value)
    return value
