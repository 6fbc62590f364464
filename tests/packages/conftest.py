"""What the packages are compared with: pyproject.toml, and its names on conda-forge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Packages whose name on conda-forge is not the one on the Python package index.
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "openmmml": "openmm-ml",
    "openmmtorch": "openmm-torch",
    "torch": "pytorch",
    "vesin": "python-vesin",
}
PINS = dict[str, SpecifierSet]


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, Any]:
    """The table ``[project]`` of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="session")
def requirements(project: dict[str, Any]):
    """Function: the requirements of the package (no argument) or of one of its extras, by name."""

    def collect(extra: str | None = None) -> PINS:
        if extra is None:
            lines = project["dependencies"]
        else:
            lines = project["optional-dependencies"][extra]
        pins: PINS = {}
        for requirement in map(Requirement, lines):
            if requirement.name == project["name"]:
                for other in requirement.extras:
                    pins |= collect(other)
            elif requirement.marker is None:
                pins[requirement.name.lower()] = requirement.specifier
        return pins

    return collect


@pytest.fixture(scope="session")
def conda_name():
    """Function: the name on conda-forge of a package of the Python package index."""
    return lambda name: CONDA_NAMES.get(name, name)


@pytest.fixture(scope="session")
def conda_requirements(requirements, conda_name):
    """The same as ``requirements``, under the names of conda-forge."""

    def collect(extra: str | None = None) -> PINS:
        return {conda_name(name): pin for name, pin in requirements(extra).items()}

    return collect


@pytest.fixture(scope="session")
def parse_conda():
    """Function: conda's ``name spec`` lines as a dictionary of version specifiers."""

    def parse(lines: list[str]) -> PINS:
        pairs = (line.partition(" ") for line in lines)
        return {name: SpecifierSet(spec) for name, _, spec in pairs}

    return parse


@pytest.fixture(scope="session")
def distributions(root: Path, tmp_path_factory) -> dict[str, Path]:
    """Source distribution, and the wheel built from it: ``{"sdist": …, "wheel": …}``."""
    pytest.importorskip("build", reason='needs pip install "openmm-nequiplr[packages]"')
    pytest.importorskip("hatchling", reason='needs pip install "openmm-nequiplr[packages]"')
    output = tmp_path_factory.mktemp("dist")
    _run("build", "--no-isolation", "--outdir", output, root)
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="session")
def conda_package(root: Path, distributions: dict[str, Path], tmp_path_factory) -> Path:
    """The wheel as a package of conda (``.conda``)."""
    pytest.importorskip("whl2conda", reason='needs pip install "openmm-nequiplr[packages]"')
    output = tmp_path_factory.mktemp("conda")
    options = ("--project-root", root, "--out-dir", output, "--batch")
    _run("whl2conda", "convert", distributions["wheel"], *options)
    (package,) = output.glob("*.conda")
    return package


def _run(module: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
