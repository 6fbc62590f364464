"""How a door has to refuse what it cannot read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from openmm_nequiplr.errors import NequIPLRError

_LONGEST_MESSAGE = 3000


def refused(read: Any, what: str, kind: type[Exception] = NequIPLRError, match: str = "") -> None:
    """Fail unless a door refuses its file by a typed error of moderate length."""
    error: Exception | None = None
    try:
        read()
    except Exception as raised:
        error = raised
    assert error is not None, f"{what}: accepted"
    text = str(error)
    assert isinstance(error, kind), f"{what}: {type(error).__name__}: {text}"
    assert len(text) < _LONGEST_MESSAGE, what
    assert re.search(match, text), f"{what}: {text}"


class Attack:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
