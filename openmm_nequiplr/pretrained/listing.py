"""Printed lists of models."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

from ..errors import ModelFileError
from .lookup import downloaded_models, read_header, shipped_models
from .registry import ModelEntry, known_models


def list_shipped_models() -> str:
    """List of the shipped and the downloaded models, one per line."""
    models = {**shipped_models(), **downloaded_models(), **shipped_models()}
    lines = [_line(name, path) for name, path in models.items()]
    if not lines:
        return "no models are shipped with this installation"
    return "\n".join([*lines, "", "nequiplr info NAME shows details."])


def list_models() -> str:
    """List of all named models, one per line: shipped, downloaded, or only in a registry.

    The files of downloaded models are compared with the digests of the registry.
    """
    known, shipped, downloaded = known_models(), shipped_models(), downloaded_models()
    lines = []
    for name in sorted({*known, *shipped, *downloaded}):
        entry = known.get(name)
        if name in shipped:
            where = "shipped"
        elif name in downloaded:
            where = _state(downloaded[name], entry)
        else:
            where = f"not local ({entry.size / 1000:.0f} kB)" if entry else ""
        path = shipped.get(name) or downloaded.get(name)
        title = _title(path) if path else (entry.title if entry else "")
        version = entry.version if entry else ""
        lines.append(f"{name:<16}{version:<10}{where:<20}{textwrap.shorten(title, 60)}".rstrip())
    return "\n".join([*lines, "", "nequiplr models download NAME downloads a model."])


def _state(path: Path, entry: ModelEntry | None) -> str:
    """State of a downloaded file: whether its digest is that of the registry."""
    if entry is None or hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256:
        return "downloaded"
    return "downloaded, other"


def _line(name: str, path: Path) -> str:
    try:
        elements = " ".join(read_header(path)["config"].get("type_names", ()))
    except ModelFileError:
        elements = "?"
    return f"{name:<16}{elements:<16}{textwrap.shorten(_title(path), 68)}".rstrip()


def _title(path: Path) -> str:
    """Title or description from a model's card."""
    try:
        card = read_header(path)["metadata"]
    except ModelFileError as error:
        return str(error)
    return str(card.get("title") or card.get("description", ""))
