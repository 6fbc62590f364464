"""Where downloaded models are kept."""

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
    """The cache of this package: ``NEQUIPLR_CACHE``, or where the system keeps caches.

    That is ``$XDG_CACHE_HOME/openmm-nequiplr`` (``~/.cache/openmm-nequiplr``) on Linux,
    ``~/Library/Caches/openmm-nequiplr`` on macOS, ``%LOCALAPPDATA%\\openmm-nequiplr`` on
    Windows. It need not exist.
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
    """The directory of downloaded models, one file ``NAME.safetensors`` for each."""
    return cache_directory() / "models"
