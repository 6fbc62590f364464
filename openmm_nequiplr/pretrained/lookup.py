"""From the name of a model to its file, and the header of a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelFileError, closest, describe, suggestion
from .cache import models_directory

#: Ending of model files.
SUFFIX = ".safetensors"
# safetensors itself refuses longer headers.
_LONGEST_HEADER = 100_000_000


def shipped_models() -> dict[str, Path]:
    """Name and path of every model that comes with the package."""
    folder = Path(str(resources.files(__package__)))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def downloaded_models() -> dict[str, Path]:
    """Name and path of every model in the cache, see :func:`.download_model`."""
    try:
        return {path.stem: path for path in sorted(models_directory().glob(f"*{SUFFIX}"))}
    except OSError:  # a cache that cannot be read holds nothing
        return {}


def named_models() -> dict[str, Path]:
    """Every name that stands for a model here, and its file; shipped models win."""
    return {**downloaded_models(), **shipped_models()}


def shipped_structure(name: str) -> Path:
    """Path of the start structure (extended XYZ) of a shipped model.

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
    """Path of a model file; the name of a shipped or downloaded model stands for its file.

    A file or directory that has such a name, such as results of its runs, does not change that;
    ``./NAME`` is the file. ``name`` is what messages call the argument.

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
    except (OSError, ValueError):  # no name that a file can have
        there = directory = False
    if there:
        return path
    near = None if directory else _near(path, named)
    if near is not None:
        raise ModelFileError(f"no model {str(model)!r}: did you mean {near!r}?")
    got = f"{model}, a directory" if directory else str(model)
    raise ModelFileError(describe(name, got, expected))


def _near(path: Path, named: Iterable[str]) -> str | None:
    """The name, or the model file in the same directory, that a path comes close to."""
    try:
        files = {each.stem: str(each) for each in path.parent.glob(f"*{SUFFIX}")}
    except (OSError, ValueError):  # no name that a directory can have
        files = {}
    name = closest(path.stem, [*files, *(named if len(path.parts) == 1 else ())])
    return None if name is None else files.get(name, name)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Configuration and card of a model file, without its weights.

    Returns
    -------
    dict
        ``config`` and ``metadata``, each a dictionary; see
        :func:`openmm_nequiplr.model.load_model` for a check of the whole file.

    Raises
    ------
    ModelFileError
        If it is no model file.
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
