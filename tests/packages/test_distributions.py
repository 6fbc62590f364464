"""Source distribution and wheel: complete, and described as pyproject.toml says."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import openmm_nequiplr


@pytest.fixture(scope="module")
def sources(root: Path) -> set[str]:
    """Files of the package in the source tree, relative to it."""
    files = (path for path in (root / "openmm_nequiplr").rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix() for path in files if path.parent.name != "__pycache__"
    }


@pytest.fixture
def wheel(distributions):
    with zipfile.ZipFile(distributions["wheel"]) as archive:
        yield archive


@pytest.fixture
def metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_holds_the_package_and_nothing_else(wheel, sources):
    described = {name for name in wheel.namelist() if ".dist-info/" in name}
    assert set(wheel.namelist()) - described == sources
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in described)


def test_wheel_holds_type_marker_and_models(wheel):
    for name, model in openmm_nequiplr.shipped_models().items():
        for path in (Path(model), Path(openmm_nequiplr.shipped_structure(name))):
            assert wheel.read(f"openmm_nequiplr/pretrained/{path.name}") == path.read_bytes()
    assert "openmm_nequiplr/py.typed" in wheel.namelist()


def test_wheel_suits_every_platform(distributions):
    assert distributions["wheel"].name.endswith("-py3-none-any.whl")


def test_sdist_holds_package_tests_and_recipe(distributions, sources, root):
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    beside = {path.relative_to(root).as_posix() for path in (root / "tests").rglob("*.py")}
    beside |= {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"}
    beside |= {"conda-recipe/recipe.yaml", "envs/environment.yml", "envs/oldest.txt"}
    assert sources | beside <= names


def test_metadata_is_that_of_pyproject(metadata, project):
    assert metadata["Name"] == project["name"]
    assert metadata["Version"] == openmm_nequiplr.__version__
    assert metadata["License-Expression"] == project["license"]
    assert SpecifierSet(metadata["Requires-Python"]) == SpecifierSet(project["requires-python"])
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])


def test_metadata_requires_what_pyproject_does(metadata, requirements):
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    always = {line.name: line.specifier for line in required if line.marker is None}
    assert always == requirements()


def test_wheel_registers_every_entry_point(wheel, project):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(wheel.read(name).decode())
    found = {group: dict(parser[group]) for group in parser.sections()}
    declared = project.get("entry-points", {}) | {"console_scripts": project["scripts"]}
    assert found == declared


def test_an_index_would_take_them(distributions):
    pytest.importorskip("twine", reason='needs pip install "openmm-nequiplr[packages]"')
    command = [sys.executable, "-m", "twine", "check", "--strict"]
    done = subprocess.run(
        [*command, *map(str, distributions.values())],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
