"""Downloading a model into the cache: checked by its digest, written in one step."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

from .. import __version__
from ..errors import ModelFileError, describe
from ..writing import replace_file
from .cache import models_directory
from .lookup import SUFFIX, read_header, shipped_models
from .registry import (
    REGISTRY,
    ModelEntry,
    check_name,
    known_models,
    merged,
    parse_registry,
    write_registry,
)

#: Environment variable: URL of a directory with a registry and model files.
MIRROR_VARIABLE = "NEQUIPLR_MODELS_URL"
_SCHEMES = ("https", "http", "file")
_TIMEOUT = 30.0  # s without an answer
_LARGEST_REGISTRY, _LARGEST_MODEL = 10_000_000, 4 * 2**30
_BLOCK = 2**20


def download_model(
    name: str, url: str | None = None, *, sha256: str | None = None, again: bool = False
) -> Path:
    """Fetch a model into the cache; from then on its name stands for it everywhere.

    Without a URL, the registry of the package and that of ``NEQUIPLR_MODELS_URL`` (a directory with
    a ``registry.json`` in it) tell where it is. With a URL, that of a model file, the digest of a
    registry still holds where one knows the name.

    Parameters
    ----------
    name : str
    url : str, optional
        ``https``, ``http`` or ``file``.
    sha256 : str, optional
        Digest that the file must have; needed for a name that no registry knows.
    again : bool
        Fetch it although the cache has it.

    Returns
    -------
    path
        In the cache. Of a shipped model, the file in the package: nothing is fetched.

    Raises
    ------
    ModelFileError
        If the name is unknown, nothing can be fetched, or what came is not the file of the digest
        or no model. The cache is then as it was.
    OSError
        If the cache cannot be written.
    """
    check_name(name)
    if name in shipped_models():
        if url is not None:
            raise ModelFileError(describe("name", name, "one that no shipped model has"))
        return shipped_models()[name]
    entry = _entry(name, url, sha256)
    target = models_directory() / f"{name}{SUFFIX}"
    if target.is_file() and not again and _digest(target.read_bytes()) == entry.sha256:
        return target
    data = _first(entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, data)
    try:
        read_header(target)
    except ModelFileError:
        target.unlink()
        raise
    return target


def _entry(name: str, url: str | None, sha256: str | None) -> ModelEntry:
    """What to fetch: of a registry, or of the arguments."""
    entry = mirrored_models().get(name) if url is None else known_models().get(name)
    if entry is None and url is None:
        expected = f"a model of a registry ({MIRROR_VARIABLE} names one), or a URL and its SHA-256"
        raise ModelFileError(describe("name", name, expected))
    if entry is None and sha256 is None:
        expected = f"the SHA-256 of the file, because no registry knows {name}"
        raise ModelFileError(describe("sha256", None, expected))
    if entry is None:
        entry = ModelEntry(name, "", str(sha256).lower(), _LARGEST_MODEL)
    elif sha256 is not None and sha256.lower() != entry.sha256:
        raise ModelFileError(describe("sha256", sha256, f"{entry.sha256}, as in the registry"))
    return entry if url is None else dataclasses.replace(entry, urls=(url,))


def mirrored_models() -> dict[str, ModelEntry]:
    """Models of the package's registry and of the mirror's, which is fetched and kept.

    Where ``NEQUIPLR_MODELS_URL`` is not set, the registry that was kept counts.

    Raises
    ------
    ModelFileError
        If ``NEQUIPLR_MODELS_URL`` is set, and there is no registry.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return known_models()
    source = urljoin(mirror.rstrip("/") + "/", REGISTRY)
    data = _fetch(source, _LARGEST_REGISTRY)
    found = parse_registry(data, source)
    path = models_directory() / REGISTRY
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write_registry(found))  # with absolute addresses
    return merged(found)


def _first(entry: ModelEntry) -> bytes:
    """The file, from the first address that has it."""
    if not entry.urls:
        expected = f"{MIRROR_VARIABLE} or a URL, because the registry has none for {entry.name}"
        raise ModelFileError(describe("url", None, expected))
    reasons = []
    for url in entry.urls:
        try:
            data = _fetch(url, min(entry.size, _LARGEST_MODEL))
            found = _digest(data)
            if found == entry.sha256:
                return data
            reasons.append(f"{url}: SHA-256 {found}, not {entry.sha256}")
        except ModelFileError as error:
            reasons.append(str(error))
    raise ModelFileError(f"model {entry.name}: nothing was fetched: {'; '.join(reasons)}")


def _fetch(url: str, most: int) -> bytes:
    """The contents of a URL, of at most so many bytes.

    Raises
    ------
    ModelFileError
        Naming the URL.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise ModelFileError(describe("url", url, f"one that begins with {', '.join(_SCHEMES)}"))
    request = Request(url, headers={"User-Agent": f"openmm-nequiplr/{__version__}"})
    data = bytearray()
    try:
        with urlopen(request, timeout=_TIMEOUT) as answer:
            while block := answer.read(_BLOCK):
                data += block
                if len(data) > most:
                    raise ModelFileError(f"{url}: longer than the {most} bytes expected")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{url}: {error}") from error
    return bytes(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
