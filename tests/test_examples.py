"""The examples run, each in a directory of its own, and README shows the one that it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: A short training instead of one that learns something.
ARGUMENTS = {"dimer_energy": ["--minutes", "0.1"]}


def _needs_openmmtorch():
    """Skip where openmm-torch is missing or does not go with this torch."""
    from openmm_nequiplr.errors import BackendError
    from openmm_nequiplr.simulation.torchforce import load_openmmtorch

    try:
        load_openmmtorch()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    if "import MLPotential" in example.read_text(encoding="utf-8"):
        pytest.importorskip("openmmml", reason="openmm-ml is not installed")
    if example.stem.startswith("torchforce"):
        _needs_openmmtorch()
    done = subprocess.run(
        [sys.executable, str(example), *ARGUMENTS.get(example.stem, [])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENMM_DEFAULT_PLATFORM": "CPU"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


def test_readme_shows_the_script_as_it_is():
    script = (ROOT / "examples" / "run_md.py").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    body = script.split('"""', 2)[2].strip()
    assert f"```python\n{body}\n```" in readme
