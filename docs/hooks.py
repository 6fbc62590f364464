"""Hooks of MkDocs: generated parts, formulas, and pages that live elsewhere in the repository."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROOT = HERE.parent

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
    """Add the pages that live elsewhere."""
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts where a page asks for them."""
    if "<!-- generated: " not in markdown:
        return markdown
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    import reference

    return reference.expand(markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers show without a script; roles as plain code."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match.group(1) == "div" else "inline"
        return convert(html.unescape(match.group(2)).strip(), display=display)

    return _ROLE.sub(r"<code>\1</code>", _FORMULA.sub(mathml, content))
