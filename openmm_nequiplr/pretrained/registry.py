"""Registries of models: names, versions, digests and URLs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urljoin

from ..errors import ModelFileError, describe
from .cache import models_directory

#: File name of a registry in the package, in the cache and on a server.
REGISTRY = "registry.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelEntry:
    """Entry of a model in a registry.

    Parameters
    ----------
    name : str
        Letters, digits, dots, hyphens and underscores.
    version : str
        Version of the model; each file of the same name has another version.
    sha256 : str
        Digest of the model file, 64 hexadecimal digits.
    size : int
        Size of the file in bytes.
    urls : tuple of str
        URLs, tried one after the other. Shipped models have none.
    title : str
        One-line description.
    """

    name: str
    version: str
    sha256: str
    size: int
    urls: tuple[str, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not _DIGEST.fullmatch(str(self.sha256)):
            expected = f"64 hexadecimal digits (0-9, a-f) for {self.name}"
            raise ModelFileError(describe("sha256", self.sha256, expected))
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size <= 0:
            expected = f"a number of bytes for {self.name}"
            raise ModelFileError(describe("size", self.size, expected))


def check_name(name: str) -> str:
    """Return the name of a model if it is valid.

    Raises
    ------
    ModelFileError
        If it contains other characters, or starts with a dot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        expected = "letters, digits, dots, hyphens and underscores"
        raise ModelFileError(describe("name", name, expected))
    return name


def parse_registry(text: str | bytes, source: str) -> dict[str, ModelEntry]:
    """Models of a registry by name.

    Parameters
    ----------
    text : str or bytes
        JSON: ``{"models": [{"name": …, "version": …, "sha256": …, "size": …, "urls": […]}, …]}``.
    source : str
        Path or URL of the registry, the base of relative URLs in it.

    Raises
    ------
    ModelFileError
        If the format is invalid, or a name occurs twice.
    """
    try:
        listed = json.loads(text)["models"]
        found: dict[str, ModelEntry] = {}
        for each in listed:
            urls = tuple(urljoin(source, str(url)) for url in each.get("urls", ()))
            entry = ModelEntry(
                each["name"], str(each["version"]), each["sha256"], each["size"], urls,
                str(each.get("title", "")),
            )  # fmt: skip
            if entry.name in found:
                raise ValueError(f"{entry.name} occurs twice")
            found[entry.name] = entry
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise ModelFileError(f"registry {source}: {error}") from error
        expected = "JSON with a list of models, each with name, version, sha256 and size"
        got = f"{type(error).__name__}: {error}"
        raise ModelFileError(describe(f"registry {source}", got, expected)) from error
    return found


def shipped_entries() -> dict[str, ModelEntry]:
    """Registry of the package."""
    path = Path(str(resources.files(__package__))) / REGISTRY
    return parse_registry(path.read_bytes(), str(path))


def write_registry(entries: Mapping[str, ModelEntry]) -> str:
    """Text of a registry, in the format of :func:`parse_registry`."""
    return json.dumps({"models": [dataclasses.asdict(e) for e in entries.values()]}, indent=2)


def merged(others: Mapping[str, ModelEntry]) -> dict[str, ModelEntry]:
    """Registry of the package merged with other entries; those of the package take precedence."""
    return {**others, **shipped_entries()}


def known_models() -> dict[str, ModelEntry]:
    """Models in the registry of the package and in the cached registry of the mirror."""
    path = models_directory() / REGISTRY
    others: dict[str, ModelEntry] = {}
    if path.is_file():
        others = parse_registry(path.read_bytes(), str(path))
    return merged(others)
