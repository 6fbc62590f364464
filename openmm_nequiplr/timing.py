"""Time of the named parts of an evaluation, measured on request."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# OpenMM may call from a thread of its own: one record for the whole process, no context variable.
_record: dict[str, float] | None = None


@contextlib.contextmanager
def collect() -> Iterator[dict[str, float]]:
    """Measure inside a ``with`` block: the dictionary fills with seconds per part."""
    global _record
    before, _record = _record, {}
    try:
        yield _record
    finally:
        _record = before


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Add the time of a ``with`` block to a part; parts must not be nested."""
    if _record is None:
        yield
        return
    begin = time.perf_counter()
    try:
        yield
    finally:
        if _record is not None:
            _record[name] = _record.get(name, 0.0) + time.perf_counter() - begin
