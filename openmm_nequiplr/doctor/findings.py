"""What a check of the installation finds, and how it is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

#: ``fail``: something does not work. ``note``: something optional is missing, or to be known.
STATES = ("ok", "note", "fail")
_WIDTH, _INDENT = 100, 8


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Parameters
    ----------
    name : str
        Of the check.
    state : {"ok", "note", "fail"}
    message : str
        What was found.
    advice : str
        What to do about it; empty where nothing is to be done.
    """

    name: str
    state: str
    message: str
    advice: str = ""


def report(findings: Sequence[Finding]) -> str:
    """All findings as text, the verdict last."""
    width = max((len(each.name) for each in findings), default=0)
    blank = " " * _INDENT
    lines: list[str] = []
    for each in findings:
        label = each.state.upper() if each.state == "fail" else each.state
        text = f"{label:<{_INDENT}}{each.name:<{width}}  {each.message}"
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent=blank + " " * (width + 2))
        if each.advice:
            lines += textwrap.wrap(
                each.advice,
                _WIDTH,
                initial_indent=f"{blank}-> ",
                subsequent_indent=f"{blank}   ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    failed = [each.name for each in findings if each.state == "fail"]
    verdict = f"not fit: {', '.join(failed)}" if failed else "fit"
    return "\n".join([*lines, "", f"{verdict} ({len(findings)} checks)"])
