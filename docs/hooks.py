"""Hooks of MkDocs: generated parts, tutorials, formulas, pages that live elsewhere."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import gallery  # MkDocs puts this directory on the path while it loads the hooks
import reference
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files, InclusionLevel

HERE = Path(__file__).parent
ROOT = HERE.parent

#: Set to "skip", the environment variable shows tutorials without running them, so without results.
TUTORIALS = "NEQUIPLR_TUTORIALS"

#: Pages and pictures outside of ``docs/`` and where they stand on the site.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/step_time.png": "benchmarks/step_time.png",
    "benchmarks/accuracy/README.md": "benchmarks/accuracy/index.md",
    **{
        f"benchmarks/accuracy/{name}.png": f"benchmarks/accuracy/{name}.png"
        for name in ("carbon_chain", "charged_dimer", "au2_mgo", "dipeptides")
    },
}
# What pymdownx.arithmatex makes of $…$ and $$…$$.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.+?)\\[)\]]</\1>', flags=re.DOTALL)


# A role of reStructuredText in a docstring, such as :class:`.pme.PointChargeCoulomb`.
_ROLE = re.compile(r":[a-z]+:<code>[~.]*(?:[\w.]*\.)?(\w+)</code>")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the tutorials, and the pages that live elsewhere."""
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    for script in gallery.SCRIPTS:
        for file in _tutorial(script, config):
            files.append(file)
        # other Python files are none of the site's
        files.src_uris[f"tutorials/{script.name}"].inclusion = InclusionLevel.INCLUDED
    return files


def _tutorial(script: Path, config: Any) -> list[File]:
    """The page of a tutorial and its pictures."""
    source, outputs = script.read_text(encoding="utf-8"), None
    where = f"tutorials/{script.stem}"
    found = []
    if os.environ.get(TUTORIALS) != "skip":
        folder = gallery.results(script)
        outputs = json.loads((folder / gallery.OUTPUTS).read_text(encoding="utf-8"))
        for name in gallery.pictures(source):
            file = File.generated(config, f"{where}/{name}", abs_src_path=str(folder / name))
            found.append(file)
    page = gallery.page(script.stem, source, outputs)
    return [*found, File.generated(config, f"{where}.md", content=page)]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts where a page asks for them."""
    if "<!-- generated: " not in markdown:
        return markdown
    return reference.expand(markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers show without a script; roles as plain code."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match.group(1) == "div" else "inline"
        return convert(html.unescape(match.group(2)).strip(), display=display)

    return _ROLE.sub(r"<code>\1</code>", _FORMULA.sub(mathml, content))
