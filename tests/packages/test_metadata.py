"""pyproject.toml, the conda environment, the conda recipe and the oldest versions agree."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import openmm_nequiplr


@pytest.fixture(scope="module")
def recipe(root: Path) -> dict[str, Any]:
    text = (root / "conda-recipe" / "recipe.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def environment(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "envs" / "environment.yml").read_text(encoding="utf-8"))


def test_environment_has_the_package_training_and_tests(
    environment, requirements, conda_name, parse_conda, project
):
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    found = parse_conda(conda) | parse_conda([line for line in pip if not line.startswith("-e")])
    from_pip = {line.split()[0] for line in pip}
    expected = {"python": SpecifierSet(project["requires-python"])}
    needed = requirements() | requirements("test")
    for name in set(needed) - set(requirements("packages")):
        expected[name if name in from_pip else conda_name(name)] = needed[name]
    beside = {"nnpops", "openmm-torch", "pip"}
    assert {name: pin for name, pin in found.items() if name not in beside} == expected
    assert beside <= set(found)
    assert environment["channels"] == ["conda-forge"]
    assert "-e .." in pip


def test_recipe_runs_with_what_the_package_needs(recipe, conda_requirements, parse_conda, project):
    python = {"python": SpecifierSet(project["requires-python"])}
    assert parse_conda(recipe["requirements"]["run"]) == conda_requirements() | python


def test_recipe_constrains_what_the_extras_need(recipe, conda_requirements, parse_conda):
    expected = conda_requirements("train") | conda_requirements("openmmml")
    assert parse_conda(recipe["requirements"]["run_constraints"]) == expected


def test_recipe_builds_with_the_build_system(recipe, parse_conda, root):
    host = parse_conda(recipe["requirements"]["host"])
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires = ["hatchling{host["hatchling"]}"]' in text
    assert {"pip", "python"} <= set(host)


def test_recipe_has_version_and_scripts(recipe, project):
    assert recipe["context"]["version"] == openmm_nequiplr.__version__
    scripts = [f"{name} = {target}" for name, target in project["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts


def test_oldest_versions_are_the_declared_ones(root, requirements):
    lines = (root / "envs" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    declared = requirements() | requirements("train")
    assert {name: _floor(pin) for name, pin in declared.items()} == {
        name: Version(version) for name, version in pinned.items()
    }


def _floor(pin: SpecifierSet) -> Version:
    (floor,) = (Version(part.version) for part in pin if part.operator == ">=")
    return floor


def test_torchforce_takes_a_torch_that_the_package_allows(requirements):
    (pin,) = requirements("torchforce")["torch"]
    assert pin.operator == "=="
    assert requirements()["torch"].contains(pin.version)


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
def test_cuda_extras_are_those_of_openmm(extra, project):
    (requirement,) = map(Requirement, project["optional-dependencies"][extra])
    offered = importlib.metadata.metadata(requirement.name).get_all("Provides-Extra")
    assert requirement.extras <= set(offered)


def test_classifiers_are_the_python_versions_allowed(project):
    pattern = re.compile(r"Programming Language :: Python :: (3\.\d+)$")
    listed = [match[1] for line in project["classifiers"] if (match := pattern.match(line))]
    allowed = SpecifierSet(project["requires-python"])
    assert listed == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]
