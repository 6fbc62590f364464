"""The documentation is complete, and what its pages show is what the package takes."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import openmm_nequiplr
from openmm_nequiplr.cli import build_parser
from openmm_nequiplr.training.config import TrainingConfig, load_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
if str(DOCS) not in sys.path:
    sys.path.insert(0, str(DOCS))
import gallery  # noqa: E402
import reference  # noqa: E402

PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", flags=re.DOTALL | re.MULTILINE)


#: Pages that are written from scripts when the site is built.
TUTORIALS = {script.with_suffix(".md"): script for script in gallery.SCRIPTS}


def text_of(page: Path) -> str:
    if page in TUTORIALS:
        source = TUTORIALS[page].read_text(encoding="utf-8")
        return gallery.page(page.stem, source, None)
    return page.read_text(encoding="utf-8")


def blocks(language: str) -> list:
    """Blocks of code on all pages in one language, without what is included from elsewhere."""
    found = []
    for page in [*PAGES, *TUTORIALS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for number, (indent, name, code) in enumerate(FENCE.findall(text_of(page))):
            if name == language and "--8<--" not in code:
                plain = "\n".join(line.removeprefix(indent) for line in code.splitlines())
                where = f"{page.relative_to(ROOT).as_posix()}-{number}"
                found.append(pytest.param(plain, id=where))
    return found


# ------------------------------------------------------------------------------------- reference


def _leaves(kind: type, section: str = "") -> set[str]:
    """Dotted names of all keys of a training file, by following the dataclasses."""
    found = set()
    for field in dataclasses.fields(kind):
        name = f"{section}.{field.name}".lstrip(".")
        inner = reference.SECTIONS.get(name)
        found |= {name} | (_leaves(inner, name) if inner else set())
    return found


def test_every_key_of_a_training_file_is_in_the_reference():
    page = reference.yaml_reference()
    keys = _leaves(TrainingConfig)
    assert len(keys) > 90
    for key in keys:
        assert f'<span id="key-{key}"></span>' in page, key


def test_no_section_is_forgotten():
    sections = importlib.import_module("openmm_nequiplr.training.config")._SECTIONS
    listed = {name.rpartition(".")[2] for name in reference.SECTIONS} - {"", "model"}
    assert listed == set(sections)


@pytest.mark.parametrize("section", reference.SECTIONS)
def test_every_key_has_a_type_and_a_meaning(section):
    for name, (entry, default) in reference.options(section).items():
        assert entry.kind, name
        assert re.match(r"[A-Z]", entry.meaning), f"{name}: {entry.meaning!r}"
        assert default, name


def test_defaults_from_the_data_are_of_keys_that_there_are():
    assert set(reference.FROM_DATA) <= set(reference.options("model"))


def test_every_check_option_has_a_meaning():
    lines = reference.check_table().splitlines()[2:]
    kind = openmm_nequiplr.checking.CheckOptions
    assert len(lines) == len(dataclasses.fields(kind))
    assert all(len(line.split("|")[-2].strip()) > 5 for line in lines)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]


@pytest.mark.parametrize("command", reference.commands())
def test_every_option_of_the_command_line_is_in_the_reference(command):
    page = reference.cli_reference()
    section = page.split(f"## nequiplr {command} ")[1].split("\n## ")[0]
    for action in _actions(reference.commands()[command]):
        names = action.option_strings or [action.metavar or action.dest]
        for name in names:
            assert re.search(rf"`{re.escape(name)}[ `]", section), name
        if action.option_strings and action.dest != "output":
            assert action.help, action.dest


def test_every_public_name_is_on_a_page_of_the_reference():
    pages = "\n".join(text_of(page) for page in (DOCS / "reference" / "python").glob("*.md"))
    asked = set(re.findall(r"<!-- generated: api (\S+) -->", pages))
    assert asked == set(reference.public_names())
    shown = "\n".join(reference.api_reference(name) for name in asked)
    for package in reference.PACKAGES:
        for name in importlib.import_module(package).__all__:
            if name.startswith("__"):
                continue
            here = re.search(rf"^::: {re.escape(package)}\.{name}$", shown, re.MULTILINE)
            assert here or f"[`{name}`][" in reference.api_reference(package), name


@pytest.mark.parametrize("package", reference.public_names())
def test_every_public_name_says_what_it_is(package):
    module = importlib.import_module(package)
    for name in reference.public_names()[package]:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert reference.introduction(value), name


def test_every_error_is_in_the_reference():
    page = reference.errors_table()
    errors = importlib.import_module("openmm_nequiplr.errors")
    own = [n for n, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, Exception)]
    for name in own:
        assert f"`{name}`" in page


def test_cards_of_all_shipped_models():
    page = reference.models_reference()
    for name in openmm_nequiplr.shipped_models():
        assert f"## `{name}`" in page
    assert not re.search(r"(?<![\w.])/(home|work|tmp|usr)/", page), "a path of this machine"


# ------------------------------------------------------------------------------------- the pages


def test_generated_parts_are_those_that_there_are():
    for page in PAGES:
        for line in re.findall(r"<!-- generated: (.+?) -->", text_of(page)):
            assert line.split()[0] in reference.PARTS, f"{page}: {line}"


def _listed(nav: object) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    each = nav.values() if isinstance(nav, dict) else nav
    return set().union(*map(_listed, each))


def test_every_page_is_in_the_navigation():
    text = re.sub(r"!!python\S*", "", text_of(ROOT / "mkdocs.yml"))
    nav = _listed(yaml.safe_load(text)["nav"])
    elsewhere = {"changelog.md", "contributing.md", "benchmarks/index.md"}
    elsewhere |= {"benchmarks/accuracy/index.md"}
    pages = [*PAGES, *TUTORIALS]
    assert nav == {page.relative_to(DOCS).as_posix() for page in pages} | elsewhere


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands_can_be_parsed(code):
    """Only ``nequiplr``; the options of a page are those of the parser."""
    joined = code.replace("\\\n", " ")
    for line in joined.splitlines():
        found = re.search(r"(?:^|&& |exec )(nequiplr .*)", line)
        if not found or "$" in line:
            continue
        words = shlex.split(found.group(1), comments=True)[1:]
        if "--help" not in words:
            assert build_parser().parse_args(words)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_imports_what_there_is(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openmm_nequiplr"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("code", blocks("yaml"))
def test_training_files_are_valid(code, tmp_path):
    """Parts of a file are completed with what every file needs."""
    given = yaml.safe_load(code)
    given.setdefault("data", {"train": "data.extxyz"})
    if "start_from" not in given:
        given.setdefault("model", {"r_max": 4.0})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    load_config(path)


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    """What stands in code before an explanation, apart from what differs from case to case."""
    strings = ["Particle coordinate is NaN"]  # OpenMM's
    for path in Path(openmm_nequiplr.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = (n for n in nodes if isinstance(n, ast.Constant) and id(n) not in docstrings)
        strings += [node.value for node in texts if isinstance(node.value, str)]
    heads = re.findall(r"^(`.+`)\n:   ", text_of(DOCS / "troubleshooting.md"), re.MULTILINE)
    assert len(heads) > 15
    for piece in re.findall(r"`(.+?)`", " ".join(heads)):
        for part in re.split(r" ?… ?|(?:, )?\b(?:expected|got)\b ?|: ", piece):
            assert any(part in text for text in strings), part


def test_readme_and_site_link_to_pages_that_exist():
    for page in [*PAGES, *TUTORIALS, ROOT / "README.md"]:
        plain = FENCE.sub("", text_of(page))
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", plain):
            if "://" in target:
                continue
            there = (page.parent / target).resolve()
            if there in TUTORIALS:
                continue
            mapped = {"changelog.md", "contributing.md"}
            inside = there.is_relative_to(DOCS)
            name = there.relative_to(DOCS).as_posix() if inside else ""
            assert there.exists() or name in mapped or name.startswith("benchmarks/"), target
