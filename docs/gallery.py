"""Tutorials: scripts in percent format that run while the site is built.

A cell begins with a line ``# %%``, a cell of text with ``# %% [markdown]``. The text shows pictures
that cells before it have written, as ``![what is on it](file.png)``; what a cell prints is shown
below it.

``python docs/gallery.py SCRIPT`` runs a script in the current directory and writes what each cell
printed into ``outputs.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
#: Where results are kept, to be used again while script and package stay the same.
RESULTS = ROOT / "build" / "tutorials"
OUTPUTS = "outputs.json"

_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+\.png)\)")
_MARK = re.compile(r"^# %%(?P<text> \[markdown\])?\n", flags=re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A part of a script.

    Parameters
    ----------
    text : bool
        Whether it is Markdown, else Python.
    source : str
        Without the mark; Markdown without comment signs.
    line : int
        Where the source begins in the script, from 0.
    """

    text: bool
    source: str
    line: int


def cells(script: str) -> list[Cell]:
    """Cut a script into its cells.

    Raises
    ------
    ValueError
        If there is something before the first cell, or a line in a cell of text is no comment.
    """
    marks = list(_MARK.finditer(script))
    if not marks or marks[0].start() != 0:
        raise ValueError("a tutorial begins with a line '# %%'")
    ends = [mark.start() for mark in marks[1:]] + [len(script)]
    found = []
    for mark, end in zip(marks, ends, strict=True):
        source, is_text = script[mark.end() : end].strip("\n"), mark["text"] is not None
        if is_text:
            lines = source.splitlines()
            if not all(line.startswith("# ") or line == "#" for line in lines):
                raise ValueError(f"a line of text is no comment in the cell {lines[0]!r}")
            source = "\n".join(line[2:] for line in lines)
        found.append(Cell(is_text, source, script.count("\n", 0, mark.end())))
    return found


def pictures(script: str) -> list[str]:
    """The files of all pictures in the text, relative to where the script runs."""
    return [m[2] for c in cells(script) if c.text for m in _PICTURE.finditer(c.source)]


def page(name: str, script: str, outputs: list[str] | None) -> str:
    """The page of a tutorial in Markdown.

    Parameters
    ----------
    name : str
        Of the script, without suffix; its pictures are in a directory of this name.
    script : str
    outputs : list of str or None
        What each cell printed. None if the script was not run: then there are no pictures.
    """
    parts = []
    for number, cell in enumerate(cells(script)):
        if cell.text:
            new = r"![\1](" + name + r"/\2){ loading=lazy }" if outputs is not None else ""
            parts.append(_PICTURE.sub(new, cell.source))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if outputs is not None and outputs[number].strip():
            parts.append(f"```text\n{outputs[number].strip()}\n```")
    where = f"docs/tutorials/{name}.py"
    parts.append(f"*This page is a script, [`{where}`]({name}.py), that runs as it stands.*")
    return "\n\n".join(parts) + "\n"


def results(script: Path) -> Path:
    """The directory with the results of a tutorial, which is run if they are not there.

    Raises
    ------
    RuntimeError
        If the script fails.
    """
    digest = hashlib.sha256(script.read_bytes())
    for source in sorted((ROOT / "openmm_nequiplr").rglob("*.py")):
        digest.update(source.read_bytes())
    folder = RESULTS / f"{script.stem}-{digest.hexdigest()[:12]}"
    if not (folder / OUTPUTS).is_file():
        with contextlib.suppress(FileNotFoundError):
            for left in RESULTS.iterdir():
                if left.name.startswith(f"{script.stem}-"):
                    shutil.rmtree(left)
        folder.mkdir(parents=True)
        command = [sys.executable, str(Path(__file__)), str(script)]
        environment = {"OPENMM_DEFAULT_PLATFORM": "CPU", **os.environ}
        done = subprocess.run(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} failed:\n{done.stderr}")
    return folder


def run(script: Path) -> None:
    """Run a script here, and write what each cell printed."""
    source, printed, outputs = script.read_text(encoding="utf-8"), io.StringIO(), []
    names = {"__name__": "__main__", "__file__": str(script)}
    with contextlib.redirect_stdout(printed):
        for cell in cells(source):
            start = printed.tell()
            if not cell.text:
                exec(compile("\n" * cell.line + cell.source, str(script), "exec"), names)
            outputs.append(printed.getvalue()[start:])
    Path(OUTPUTS).write_text(json.dumps(outputs, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve())
