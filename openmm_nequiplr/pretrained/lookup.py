"""Lookup of model files by name, and reading of their headers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelFileError, closest, describe, suggestion
from .cache import models_directory

#: File name extension of model files.
SUFFIX = ".safetensors"
# safetensors itself refuses longer headers.
_LONGEST_HEADER = 100_000_000


def shipped_models() -> dict[str, Path]:
    """Paths of the models shipped with the package, by name."""
    folder = Path(str(resources.files(__package__)))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def downloaded_models() -> dict[str, Path]:
    """Paths of the models in the cache, by name; see :func:`.download_model`."""
    try:
        return {path.stem: path for path in sorted(models_directory().glob(f"*{SUFFIX}"))}
    except OSError:  # an unreadable cache counts as empty
        return {}


def named_models() -> dict[str, Path]:
    """Paths of all local models, by name; shipped models take precedence."""
    return {**downloaded_models(), **shipped_models()}


def shipped_structure(name: str) -> Path:
    """Path of the initial structure (extended XYZ) of a shipped model.

    Raises
    ------
    InputError
        If no such model is shipped.
    """
    models = shipped_models()
    if name not in models:
        message = describe("name", name, f"a shipped model {sorted(models)}")
        raise InputError(message + suggestion(name, models))
    return models[name].with_suffix(".extxyz")


def model_path(model: str | os.PathLike, name: str = "model") -> Path:
    """Path of a model file, or of the shipped or downloaded model of that name.

    The name of a model takes precedence over a file or directory of the same name, such as the
    results of its runs; ``./NAME`` is the file. Messages call the argument ``name``.

    Raises
    ------
    ModelFileError
        If there is no such file or name.
    """
    shipped, downloaded = shipped_models(), downloaded_models()
    expected = f"a model file or a shipped model {sorted(shipped)}"
    if downloaded:
        expected += f" or a downloaded one {sorted(downloaded)}"
    named = {**downloaded, **shipped}
    if not isinstance(model, str | os.PathLike):
        raise ModelFileError(describe(name, type(model).__name__, expected))
    if str(model) in named:
        return named[str(model)]
    path = Path(model)
    try:
        there, directory = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # not a valid file name
        there = directory = False
    if there:
        return path
    near = None if directory else _near(path, named)
    if near is not None:
        raise ModelFileError(f"no model {str(model)!r}: did you mean {near!r}?")
    got = f"{model}, a directory" if directory else str(model)
    raise ModelFileError(describe(name, got, expected))


def _near(path: Path, named: Iterable[str]) -> str | None:
    """Name or model file in the same directory that is similar to a path."""
    try:
        files = {each.stem: str(each) for each in path.parent.glob(f"*{SUFFIX}")}
    except (OSError, ValueError):  # not a valid directory name
        files = {}
    name = closest(path.stem, [*files, *(named if len(path.parts) == 1 else ())])
    return None if name is None else files.get(name, name)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Configuration and card of a model file, without its weights.

    Returns
    -------
    dict
        ``config`` and ``metadata``, each a dictionary.
        :func:`openmm_nequiplr.model.load_model` checks the whole file.

    Raises
    ------
    ModelFileError
        If it is not a model file.
    """
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 0 < length <= min(_LONGEST_HEADER, os.path.getsize(path)):
                raise ValueError("no header")
            header = json.loads(handle.read(length))["__metadata__"]
        parts = {name: json.loads(header.get(name, "{}")) for name in ("config", "metadata")}
        if not all(isinstance(part, dict) for part in parts.values()):
            raise ValueError("a header of another kind")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"model: {path} is not a readable model file ({type(error).__name__}: {error})"
        ) from error
    return parts
