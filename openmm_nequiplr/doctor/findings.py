"""Findings of the checks of the installation, and their report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _INDENT = 100, 8


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Parameters
    ----------
    name : str
        Name of the check.
    state : {"ok", "note", "fail"}
        ``fail``: something does not work. ``note``: something optional is missing, or to be known.
    message : str
        Description of the result.
    advice : str
        Recommended action; empty if none is needed.
    """

    name: str
    state: str
    message: str
    advice: str = ""


def report(findings: Sequence[Finding]) -> str:
    """Text of all findings, followed by the verdict."""
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
