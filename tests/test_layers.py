"""Layers import downwards only; OpenMM stays in ``simulation/``, the network out of it."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import openmm_nequiplr

PACKAGE = Path(openmm_nequiplr.__file__).parent
ROOT = PACKAGE.name

# From the bottom to the top: a module may import its own layer and those before it.
LAYERS = [
    {
        "buffers",
        "derivatives",
        "devices",
        "errors",
        "jit",
        "lattice",
        "lazy",
        "locking",
        "recording",
    }
    | {"boundaries", "operators", "pickling", "signals", "threads", "units", "writing"}
    | {"yaml_files"},
    {"checks", "console", "costs", "paths", "pretrained", "total_charge", "whole"},
    {"ops"},
    {"files", "neighbors"},
    {"device_neighbors"},
    {"conditions", "fragments", "verlet"},
    {"electrostatics"},
    {"equilibration", "graph"},
    {"nn"},
    {"model"},
    {"calculator", "data", "describe"},
    {"analysis"},
    {"training"},
    {"simulation"},
    {"checking"},
    {"doctor"},
    {"cli", "openmm_ml"},
    {"__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Independent of one another although one is above the other in the list.
FORBIDDEN = {
    "simulation": {"nn", "training", "calculator"},
    "training": {"calculator", "simulation"},
    "nn": {"electrostatics", "equilibration"},
    "ops": {"electrostatics", "equilibration"},
    "data": {"model", "nn", "electrostatics", "equilibration"},
    "files": {"model", "nn", "electrostatics", "equilibration"},
}


def _layer(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _package_of(path: Path) -> tuple[str, ...]:
    return (ROOT, *path.relative_to(PACKAGE).parts[:-1])


@functools.cache
def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """Dotted names of everything that a source file imports when it runs.

    Imports for type checkers alone (``if TYPE_CHECKING``) do not count.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _package_of(path)[: -node.level + 1 or None] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{module}.{alias.name}" for alias in node.names)
        elif _is_type_checking(node) or (
            isinstance(node, ast.FunctionDef) and not inside_functions
        ):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _inner_layers(path: Path) -> set[str]:
    names = {name for name in imports(path) if name.split(".")[0] == ROOT}
    return {name.split(".")[1] for name in names if len(name.split(".")) > 1}


def sources(*, outside: set[str]) -> list[Path]:
    """Source files that are not in the layers ``outside``."""
    return [path for path in SOURCES if _layer(path) not in outside]


def test_every_module_has_a_layer():
    assert {_layer(path) for path in SOURCES} <= set(LEVEL)


def test_imports_go_downwards():
    for path in sources(outside={"__init__"}):  # the root gathers names of all layers, lazily
        own = _layer(path)
        used = _inner_layers(path) & set(LEVEL)
        upwards = {name for name in used if LEVEL[name] > LEVEL[own]}
        assert not upwards, f"{path} imports from above: {sorted(upwards)}"
        across = used & FORBIDDEN.get(own, set())
        assert not across, f"{path} must not know {sorted(across)}"


def test_only_simulation_knows_openmm():
    for path in sources(outside={"simulation", "doctor"}):
        if path.name == "mmcif.py":  # the parser of mmCIF is OpenMM's
            continue
        inside_functions = _layer(path) not in {"cli", "__init__"}
        tops = {name.split(".")[0] for name in imports(path, inside_functions)}
        assert not tops & {"openmm", "openmmtorch", "openmmml"}, path


def test_e3nn_stays_in_the_network():
    for path in sources(outside={"nn", "model"}):
        assert "e3nn" not in {name.split(".")[0] for name in imports(path)}, path


def test_no_file_changes_the_default_dtype():
    for path in SOURCES:
        assert "set_default_dtype" not in path.read_text(encoding="utf-8"), path
