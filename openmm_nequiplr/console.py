"""Output to streams of any encoding, and suppression of output of C libraries."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import math
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

_HANDLER = "nequiplr.spell"
_SPELLED = {
    "×": "x", "±": "+-", "–": "-", "−": "-", "—": "-", "…": "...", "°": " deg", "→": "->",
    "≥": ">=", "≤": "<=", "·": "*", "√": "sqrt", "Σ": "sum", "μ": "u", "µ": "u", "²": "^2",
    "³": "^3", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip


def spell(text: str) -> str:
    """Transliterate text to ASCII: Å as A, σ as sigma; a question mark if impossible."""
    return "".join(map(_spell_one, text))


def _spell_one(character: str) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"]:
        return words[3].lower() if words[1] == "SMALL" else words[3].capitalize()
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"


def say(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print and flush; characters that the stream cannot encode are transliterated to ASCII."""
    stream = sys.stdout if file is None else file
    try:
        print(text, end=end, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        fitting = text.encode(encoding, _HANDLER).decode(encoding)
        print(fitting, end=end, file=stream, flush=True)


def duration(seconds: float) -> str:
    """Duration as ``m:ss``, ``h:mm:ss`` or, from two days on, in days; ``?`` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours}:{minutes_left:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def spell_on_streams() -> None:
    """Transliterate all further output that standard output and error cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Discard the output of C code to standard output inside a ``with`` block.

    It affects the whole process, so the block should be short.
    """
    try:
        kept = os.dup(1)
    except OSError:  # closed: nothing is printed anyway
        yield
        return
    _flush()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """Flush the buffers of Python and of the C library."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fflush(None)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spell(error.object[error.start : error.end]), error.end


codecs.register_error(_HANDLER, _spelled)
