"""The package root: public names, lazy imports, version, files that belong to the package."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import openmm_nequiplr

PACKAGE = Path(openmm_nequiplr.__file__).parent
PUBLIC = [
    "ChargeReporter",
    "CommitteeReporter",
    "EnergyReporter",
    "Evaluation",
    "Evaluator",
    "ModelConfig",
    "NequIPLRCalculator",
    "NequIPLRPotential",
    "StabilityReporter",
    "Structure",
    "analyze_trajectory",
    "charge_variable",
    "check_model",
    "create_force",
    "create_system",
    "current_evaluation",
    "deserialize_system",
    "dipole_variable",
    "download_model",
    "evaluate",
    "export_torch_force",
    "from_atoms",
    "get_computation",
    "load_charges",
    "load_model",
    "load_system",
    "read_structure",
    "read_structures",
    "save_model",
    "save_system",
    "shipped_models",
    "shipped_structure",
    "to_atoms",
    "train",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_resolve(name):
    assert getattr(openmm_nequiplr, name) is not None
    assert name in openmm_nequiplr.__all__
    assert name in dir(openmm_nequiplr)


def test_all_holds_nothing_else():
    assert sorted(openmm_nequiplr.__all__) == sorted([*PUBLIC, "__version__"])


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = openmm_nequiplr.nonsense


def _modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    program = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import openmm_nequiplr",
        "from openmm_nequiplr.cli import build_parser; build_parser()",
    ],
)
def test_nothing_heavy_is_imported_early(code):
    heavy = {"torch", "openmm", "e3nn", "numpy", "lightning", "matplotlib", "ase"}
    assert not heavy & _modules_after(code)


def test_the_model_needs_no_openmm_and_no_lightning():
    loaded = _modules_after(
        "from openmm_nequiplr import ModelConfig, NequIPLRPotential, NequIPLRCalculator"
    )
    assert "torch" in loaded
    assert not {"openmm", "lightning"} & loaded


def test_version_is_the_installed_one():
    try:
        installed = importlib.metadata.distribution("openmm-nequiplr")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable installation keeps the version that it was made with")
    assert installed.version == openmm_nequiplr.__version__


def test_citation_has_this_version():
    citation = PACKAGE.parent / "CITATION.cff"
    if not citation.exists():
        pytest.skip("no source tree around the package")
    lines = citation.read_text(encoding="utf-8").splitlines()
    assert f"version: {openmm_nequiplr.__version__}" in lines


def test_changelog_knows_this_version():
    changelog = PACKAGE.parent / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("no source tree around the package")
    assert f"## {openmm_nequiplr.__version__}" in changelog.read_text(encoding="utf-8")


def test_type_marker_is_there():
    assert (PACKAGE / "py.typed").exists()


def test_shipped_models_are_small_and_have_a_structure():
    models = openmm_nequiplr.shipped_models()
    assert {"au2-mgo", "carbon-chain"} <= set(models)
    for name, path in models.items():
        assert Path(path).stat().st_size < 2_000_000
        assert Path(openmm_nequiplr.shipped_structure(name)).exists()
