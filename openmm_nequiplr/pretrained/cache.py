"""Directory of downloaded models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Environment variable that names the directory.
CACHE_VARIABLE = "NEQUIPLR_CACHE"
_NAME = "openmm-nequiplr"


def home_directory() -> Path:
    """The user's home; one that does not exist where a user has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def cache_directory() -> Path:
    """Cache directory of this package: ``NEQUIPLR_CACHE``, or a directory in the user's cache.

    The latter is ``$XDG_CACHE_HOME/openmm-nequiplr`` (``~/.cache/openmm-nequiplr``) on Linux,
    ``~/Library/Caches/openmm-nequiplr`` on macOS, and ``%LOCALAPPDATA%\\openmm-nequiplr`` on
    Windows. The directory may not exist.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(home_directory() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(home_directory() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(home_directory() / ".cache")
    return Path(base) / _NAME


def models_directory() -> Path:
    """Directory of downloaded models, with one file ``NAME.safetensors`` per model."""
    return cache_directory() / "models"
