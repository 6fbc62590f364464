"""Examples and tutorials run, each in a directory of its own; README shows the one it says."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import runpy
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
PICTURE = re.compile(r"^# !\[.+\]\((.+)\)$", flags=re.MULTILINE)
#: A short training and a short run instead of a model and a spectrum that are good for something.
ARGUMENTS = {"dimer_energy": ["--minutes", "0.05"], "infrared": ["300"]}


def _needs_openmmtorch():
    """Skip where openmm-torch is missing or does not go with this torch."""
    from openmm_nequiplr.errors import BackendError
    from openmm_nequiplr.simulation.torchforce import load_openmmtorch

    try:
        load_openmmtorch()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server():
    """Processes that have imported everything and computed nothing: they start at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["openmm_nequiplr.simulation.md", "openmm_nequiplr.calculator", "matplotlib.figure"]
    )
    return context


def run(example, folder, output):
    """Run a script as a program of its own; its output, and the error that ended it."""
    os.chdir(folder)
    os.environ["OPENMM_DEFAULT_PLATFORM"] = "CPU"
    sys.argv = [str(example), *ARGUMENTS.get(example.stem, [])]
    sys.path.insert(0, str(example.parent))
    shown, error = io.StringIO(), ""
    with contextlib.redirect_stdout(shown):
        try:
            runpy.run_path(str(example), run_name="__main__")
        except BaseException:
            error = traceback.format_exc()
    output.send((shown.getvalue(), error))


@pytest.mark.slow
@pytest.mark.parametrize("example", [*EXAMPLES, *TUTORIALS], ids=lambda path: path.stem)
def test_example_runs(server, example, tmp_path):
    if "import MLPotential" in example.read_text(encoding="utf-8"):
        pytest.importorskip("openmmml", reason="openmm-ml is not installed")
    if example.stem.startswith("torchforce"):
        _needs_openmmtorch()
    here, there = server.Pipe(duplex=False)
    process = server.Process(target=run, args=(example, tmp_path, there))
    process.start()
    there.close()
    try:
        assert here.poll(600), "it does not end"
        shown, error = here.recv()
    except EOFError:
        process.join()
        pytest.fail(f"the process ended with status {process.exitcode}")
    finally:
        process.kill()
        process.join()
    assert not error, error
    assert shown.strip()
    for name in PICTURE.findall(example.read_text(encoding="utf-8")):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG", name


def test_there_are_examples():
    assert len(EXAMPLES) >= 3
    assert len(TUTORIALS) >= 6


def test_readme_shows_the_script_as_it_is():
    script = (ROOT / "examples" / "run_md.py").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    body = script.split('"""', 2)[2].strip()
    assert f"```python\n{body}\n```" in readme
