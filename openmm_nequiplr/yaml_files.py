"""Reader of YAML files: plain values, no duplicate keys, no exponential aliases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, describe

#: Largest file in bytes, and largest number of values after expansion of all aliases.
_MOST_BYTES = 16_000_000
_MOST_VALUES = 1_000_000


def read_yaml(path: str | os.PathLike, name: str) -> Any:
    """Read the values of a YAML file.

    Parameters
    ----------
    path : path
    name : str
        Name of the argument, for messages.

    Raises
    ------
    InputError
        If there is no such file, it is not YAML in UTF-8, a key occurs twice, or it is too large
        after expansion of all aliases.
    """
    if not Path(path).is_file():
        raise InputError(describe(name, str(path), "an existing YAML file"))
    if os.path.getsize(path) > _MOST_BYTES:
        raise InputError(describe(name, f"{path}, {os.path.getsize(path)} bytes", "a YAML file"))
    try:
        return parse_yaml(Path(path).read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise InputError(describe(name, str(path), f"valid YAML ({error})")) from None


def parse_yaml(text: str) -> Any:
    """Parse the values of a YAML text.

    Raises
    ------
    ValueError
        If it is not YAML, a key occurs twice, or it is too large after expansion of all aliases.
    RecursionError
        If it is nested too deeply.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _count(node, {})
        return yaml.SafeLoader("").construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values below a node after expansion of all aliases."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise ValueError("a value that contains itself")
        return known[id(node)]
    known[id(node)] = -1
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count(each, known) for each in node.value)
    elif isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} twice in line {node.start_mark.line + 1} ff.")
        total += sum(_count(key, known) + _count(value, known) for key, value in node.value)
    if total > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES} values after expansion of all aliases")
    known[id(node)] = total
    return total
