"""Text for consoles and pipes of any encoding."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import Any, TextIO

_HANDLER = "nequiplr.spell"
_SPELLED = {
    "×": "x", "±": "+-", "–": "-", "−": "-", "—": "-", "…": "...", "°": " deg", "→": "->",
    "≥": ">=", "≤": "<=", "·": "*", "√": "sqrt", "Σ": "sum", "μ": "u", "µ": "u", "²": "^2",
    "³": "^3", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip


def spell(text: str) -> str:
    """Write text in ASCII: Å as A, σ as sigma, and what has no such spelling as a question mark."""
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
    """Print at once; characters that the stream cannot encode are spelled in ASCII."""
    stream = sys.stdout if file is None else file
    try:
        print(text, end=end, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        fitting = text.encode(encoding, _HANDLER).decode(encoding)
        print(fitting, end=end, file=stream, flush=True)


def spell_on_streams() -> None:
    """Let everything that is printed from now on be spelled where the stream cannot encode it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spell(error.object[error.start : error.end]), error.end


codecs.register_error(_HANDLER, _spelled)
