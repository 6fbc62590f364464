"""Download of models to the cache, with verification of their digests."""

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
    """Download a model to the cache, after which it can be used by its name.

    Without a URL, the model is looked up in the registry of the package and in that of
    ``NEQUIPLR_MODELS_URL`` (a directory that contains a ``registry.json``). A file from a URL must
    have the digest of the registry if it lists the name.

    Parameters
    ----------
    name : str
    url : str, optional
        URL of a model file: ``https``, ``http`` or ``file``.
    sha256 : str, optional
        Expected digest of the file; required for a name that is in no registry.
    again : bool
        Download the file even if it is in the cache.

    Returns
    -------
    path
        File in the cache. For a shipped model it is the file in the package, without a download.

    Raises
    ------
    ModelFileError
        If the name is unknown, the download fails, the digest differs, or the file is not a model.
        The cache is then unchanged.
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
    """Entry of the model to download, from a registry or from the arguments."""
    entry = mirrored_models().get(name) if url is None else known_models().get(name)
    if entry is None and url is None:
        expected = f"a model of a registry (see {MIRROR_VARIABLE}), or a URL and its SHA-256"
        raise ModelFileError(describe("name", name, expected))
    if entry is None and sha256 is None:
        expected = f"the SHA-256 of the file, because no registry lists {name}"
        raise ModelFileError(describe("sha256", None, expected))
    if entry is None:
        entry = ModelEntry(name, "", str(sha256).lower(), _LARGEST_MODEL)
    elif sha256 is not None and sha256.lower() != entry.sha256:
        raise ModelFileError(describe("sha256", sha256, f"{entry.sha256}, as in the registry"))
    return entry if url is None else dataclasses.replace(entry, urls=(url,))


def mirrored_models() -> dict[str, ModelEntry]:
    """Models in the registries of the package and of the mirror, which is downloaded and cached.

    If ``NEQUIPLR_MODELS_URL`` is not set, the cached registry is used.

    Raises
    ------
    ModelFileError
        If ``NEQUIPLR_MODELS_URL`` is set but has no registry.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return known_models()
    source = urljoin(mirror.rstrip("/") + "/", REGISTRY)
    data = _fetch(source, _LARGEST_REGISTRY)
    found = parse_registry(data, source)
    path = models_directory() / REGISTRY
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write_registry(found))  # with absolute URLs
    return merged(found)


def _first(entry: ModelEntry) -> bytes:
    """Content of the file, from the first URL that provides it."""
    if not entry.urls:
        expected = f"{MIRROR_VARIABLE} or a URL, because the registry lists none for {entry.name}"
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
    """Content of a URL, at most ``most`` bytes.

    Raises
    ------
    ModelFileError
        If it cannot be downloaded.
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
