"""Tutorials are cut into cells, run, and put on a page with their results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
if str(DOCS) not in sys.path:
    sys.path.insert(0, str(DOCS))
import gallery  # noqa: E402

SCRIPT = """\
# %% [markdown]
# # Title
#
# Some text.

# %%
from pathlib import Path

print("first")
Path("drawn.png").write_bytes(b"picture")

# %%
silent = 3

# %% [markdown]
# ![A picture](drawn.png)

# %%
print("second", silent)
"""


def test_cells():
    found = gallery.cells(SCRIPT)
    assert [cell.text for cell in found] == [True, False, False, True, False]
    assert found[0].source == "# Title\n\nSome text."
    assert found[2].source == "silent = 3"
    assert SCRIPT.splitlines()[found[4].line] == 'print("second", silent)'


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os\n# %%\n", "begins with"),
        ("print(1)\n", "begins with"),
        ("# %% [markdown]\n# text\nimport os\n", "no comment"),
    ],
)
def test_scripts_that_are_no_tutorials(script, message):
    with pytest.raises(ValueError, match=message):
        gallery.cells(script)


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "RESULTS", tmp_path / "results")
    path = tmp_path / "example.py"
    path.write_text(SCRIPT)
    return path


def test_results_are_kept_until_the_script_changes(script):
    folder = gallery.results(script)
    assert json.loads((folder / gallery.OUTPUTS).read_text()) == [
        "",
        "first\n",
        "",
        "",
        "second 3\n",
    ]
    assert (folder / "drawn.png").read_bytes() == b"picture"
    (folder / "drawn.png").write_bytes(b"kept")
    assert gallery.results(script) == folder
    assert (folder / "drawn.png").read_bytes() == b"kept"
    script.write_text(SCRIPT.replace("silent = 3", "silent = 4"))
    assert "second 4" in (gallery.results(script) / gallery.OUTPUTS).read_text()
    assert not folder.exists()


def test_a_script_that_fails_tells_the_line(script):
    script.write_text(SCRIPT.replace("silent = 3", "1 / 0"))
    with pytest.raises(RuntimeError, match=r"(?s)example.py failed.*line 13.*ZeroDivisionError"):
        gallery.results(script)
    script.write_text(SCRIPT)
    assert gallery.results(script).is_dir()


def test_the_page_shows_code_results_and_pictures():
    outputs = ["", "first\n", "", "", "second 3\n"]
    page = gallery.page("example", SCRIPT, outputs)
    assert page.startswith("# Title\n\nSome text.\n\n```python\nfrom pathlib import Path\n")
    assert "```text\nfirst\n```" in page
    assert "silent = 3\n```\n\n![A picture](example/drawn.png)" in page
    plain = gallery.page("example", SCRIPT, None)
    assert "```text" not in plain
    assert "drawn.png)" not in plain


@pytest.mark.parametrize("script", gallery.SCRIPTS, ids=lambda path: path.stem)
def test_every_tutorial_has_a_title_and_pictures(script):
    source = script.read_text(encoding="utf-8")
    assert gallery.cells(source)[0].source.startswith("# ")
    assert len(gallery.pictures(source)) == len(set(gallery.pictures(source))) > 0
