"""The conda recipe renders, and the wheel becomes a conda package with the same requirements.

No channel is asked: the recipe is rendered, not built.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

import openmm_nequiplr


@pytest.fixture(scope="module")
def rendered(root: Path):
    """The one variant of the recipe."""
    rattler = pytest.importorskip(
        "rattler_build", reason='needs pip install "openmm-nequiplr[packages]"'
    )
    recipe = rattler.Stage0Recipe.from_file(root / "conda-recipe" / "recipe.yaml")
    (variant,) = recipe.render(rattler.VariantConfig())
    return variant.recipe


@pytest.fixture(scope="module")
def unpacked(conda_package: Path, tmp_path_factory) -> Path:
    """The conda package's files."""
    from conda_package_handling.api import extract

    folder = tmp_path_factory.mktemp("unpacked")
    extract(str(conda_package), str(folder))
    return folder


def test_recipe_renders(rendered, project):
    assert str(rendered.package.name) == project["name"]
    assert str(rendered.package.version) == openmm_nequiplr.__version__
    assert rendered.build.noarch == "python"
    assert rendered.about.license == project["license"]


def test_package_and_recipe_have_the_same_requirements(rendered, unpacked, parse_conda):
    index = json.loads((unpacked / "info" / "index.json").read_text(encoding="utf-8"))
    assert parse_conda(index["depends"]) == parse_conda(list(rendered.requirements.run))


def test_package_names_are_those_of_conda_forge(unpacked, conda_requirements, parse_conda):
    index = json.loads((unpacked / "info" / "index.json").read_text(encoding="utf-8"))
    found = parse_conda(index["depends"])
    assert found.pop("python")
    assert found == conda_requirements()
    assert (index["name"], index["version"]) == ("openmm-nequiplr", openmm_nequiplr.__version__)
    assert index["noarch"] == "python"


def test_package_holds_the_files_of_the_wheel(unpacked, distributions):
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("openmm_nequiplr/")]
        for name in names:
            assert (unpacked / "site-packages" / name).read_bytes() == wheel.read(name), name
    assert "openmm_nequiplr/pretrained/au2-mgo.safetensors" in names


def test_package_registers_every_entry_point(unpacked, distributions, project):
    link = json.loads((unpacked / "info" / "link.json").read_text(encoding="utf-8"))
    scripts = [f"{name}={target}" for name, target in project["scripts"].items()]
    assert link["noarch"] == {"type": "python", "entry_points": scripts}
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert (unpacked / "site-packages" / name).read_bytes() == wheel.read(name)
