"""Reference pages out of the package itself: options, command line, models, public names.

Pages ask for a part with a line ``<!-- generated: NAME -->``; :mod:`hooks` puts it there when the
site is built. Nothing of it is copied by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import capabilities

from openmm_nequiplr import checking, load_model, shipped_models
from openmm_nequiplr.cli import build_parser
from openmm_nequiplr.data import DataKeys, DataUnits
from openmm_nequiplr.data.keys import DEFAULT_KEYS
from openmm_nequiplr.data.units import ENERGIES, LENGTHS
from openmm_nequiplr.model import ModelConfig
from openmm_nequiplr.training import config as training_config
from openmm_nequiplr.training.harmonic import HarmonicConfig
from openmm_nequiplr.training.initial import SAFE_DEFAULTS

#: Sections of a training file, in the order of the page, and the dataclasses behind them.
SECTIONS: dict[str, type] = {
    "": training_config.TrainingConfig,
    "data": training_config.DataConfig,
    "data.keys": DataKeys,
    "data.units": DataUnits,
    "model": ModelConfig,
    "equilibration": training_config.EquilibrationConfig,
    "loss": training_config.LossConfig,
    "harmonic": HarmonicConfig,
    "optimizer": training_config.OptimizerConfig,
    "schedule": training_config.ScheduleConfig,
}
#: Entries of ``model`` that a training takes from the data where nothing is given.
FROM_DATA = {
    "type_names": "from the data",
    "avg_num_neighbors": "`auto`",
    "charge_min": "`auto`",
    "charge_max": "`auto`",
    **{name: f"`{json.dumps(value).strip(chr(34))}`" for name, value in SAFE_DEFAULTS.items()},
}
#: Sub-packages whose ``__all__`` is the public interface, and modules that have none.
PACKAGES = [
    "openmm_nequiplr",
    "openmm_nequiplr.simulation",
    "openmm_nequiplr.model",
    "openmm_nequiplr.data",
    "openmm_nequiplr.analysis",
    "openmm_nequiplr.checking",
    "openmm_nequiplr.pretrained",
    "openmm_nequiplr.doctor",
]
MODULES = {
    "openmm_nequiplr.training.config": ["load_config", "TrainingConfig"],
    "openmm_nequiplr.training.new": ["new_config"],
    "openmm_nequiplr.training.run": ["TrainingResult"],
    "openmm_nequiplr.training.dry_run": ["dry_run"],
    "openmm_nequiplr.training.estimate": ["Estimate"],
    "openmm_nequiplr.training.committee": ["train_committee"],
    "openmm_nequiplr.training.evaluate": ["Metrics"],
    "openmm_nequiplr.training.spread": ["evaluate_committee"],
    "openmm_nequiplr.model.convert": ["convert_checkpoint"],
    "openmm_nequiplr.model.info": ["describe_model"],
}
ERRORS = "openmm_nequiplr.errors"

_UNITS = re.compile(r"^(1/)?(Å|e|eV|K|fs|ps|bar|min|MB|GB)([ /·].*)?$")


@dataclass(frozen=True)
class Entry:
    """What a docstring says of a parameter."""

    kind: str
    unit: str
    meaning: str


def parameters(documented: type | Callable[..., Any]) -> dict[str, Entry]:
    """The section ``Parameters`` of a numpydoc docstring, by name."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    found: dict[str, Entry] = {}
    start = next((i for i, line in enumerate(lines) if line == "Parameters"), len(lines)) + 2
    names, kind, text = [], "", []

    def close() -> None:
        entry = Entry(*_kind_and_unit(kind), _prose(text))
        found.update(dict.fromkeys(names, entry))

    for number, line in enumerate(lines[start:], start):
        ruled = number + 1 < len(lines) and lines[number + 1].startswith("---")
        if ruled:
            break
        if line and not line.startswith(" "):
            close()
            head, _, kind = line.partition(" : ")
            names, text = [name.strip(" *") for name in head.split(",")], []
        else:
            text.append(line.strip())
    close()
    return found


def _kind_and_unit(text: str) -> tuple[str, str]:
    """``"float, optional, Å"`` in its parts, without ``optional``."""
    parts = re.split(r", (?![^{]*})", text)
    units = [part for part in parts if _UNITS.match(part)]
    kinds = [part for part in parts if part and part != "optional" and part not in units]
    return ", ".join(kinds), ", ".join(units)


def _prose(lines: Iterable[str]) -> str:
    """reStructuredText of a docstring as Markdown."""
    text = " ".join(line for line in lines if line)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("|", "\\|")


def introduction(documented: Any) -> str:
    """What a docstring says before its first section."""
    text = inspect.getdoc(documented) or ""
    head = re.split(r"\n\w[\w ]*\n-{3,}", text)[0].strip()
    return "\n\n".join(_prose(block.splitlines()) for block in head.split("\n\n"))


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell or " " for cell in row) + " |" for row in rows]
    return "\n".join(lines)


# ------------------------------------------------------------------------------- training files


def options(section: str) -> dict[str, tuple[Entry, str]]:
    """Every key of a section of a training file with its entry and its default."""
    kind = SECTIONS[section]
    documented = parameters(kind)
    found = {}
    for field in dataclasses.fields(kind):
        default = _default(field)
        if section == "model":
            default = FROM_DATA.get(field.name, default)
        inner = f"{section}.{field.name}".lstrip(".")
        entry = documented.get(field.name, Entry("", "", ""))
        if inner in SECTIONS and inner != "model":
            entry = Entry("section", "", f"See [`{inner}`](#{inner.replace('.', '-')}).")
        found[field.name] = entry, default
    return found


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
        if value is None:
            return "–"
        return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return "–" if dataclasses.is_dataclass(made) else f"`{json.dumps(made)}`"
    return "**required**"


def yaml_reference() -> str:
    """Every key of a training file."""
    parts = []
    for section in SECTIONS:
        title = f"`{section}`" if section else "Top level"
        anchor = section.replace(".", "-") or "top-level"
        rows = []
        for name, (entry, default) in options(section).items():
            key = _anchored(f"{section}.{name}".lstrip("."), name)
            meaning = re.sub(r"\bNone\b", "`null`", entry.meaning)
            rows.append((key, entry.kind.replace("|", "\\|"), default, entry.unit, meaning))
        parts += [f"## {title} {{ #{anchor} }}", introduction(SECTIONS[section])]
        parts.append(_table(("key", "type", "default", "unit", "meaning"), rows))
    return "\n\n".join(parts)


def _anchored(target: str, text: str) -> str:
    return f'<span id="key-{target}"></span>`{text}`'


# --------------------------------------------------------------------------------- command line


def commands() -> dict[str, argparse.ArgumentParser]:
    """The sub-commands of ``nequiplr`` and their parsers."""
    (group,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(group.choices)


def arguments(parser: argparse.ArgumentParser) -> dict[str, list[argparse.Action]]:
    """Arguments of a sub-command by the title of their group, without ``--help``."""
    found: dict[str, list[argparse.Action]] = {}
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
        if actions:
            found[group.title or ""] = actions
    return found


def cli_reference() -> str:
    """Every sub-command with all its arguments."""
    parts = []
    for name, parser in commands().items():
        parts += [f"## nequiplr {name} {{ #{name} }}", str(parser.description)]
        for title, actions in arguments(parser).items():
            parts.append(f"**{title[:1].upper()}{title[1:]}**")
            rows = [(_call(action), _help(action)) for action in actions]
            parts.append(_table(("argument", "meaning"), rows))
    return "\n\n".join(parts)


def _call(action: argparse.Action) -> str:
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    if action.nargs in ("+", "*") and action.option_strings:
        value = f"{value} …"
    if not action.option_strings:
        return f"`{value}`" + (" (optional)" if action.nargs == "?" else "")
    if action.nargs == 0:
        return ", ".join(f"`{option}`" for option in action.option_strings)
    return ", ".join(f"`{option} {value}`" for option in action.option_strings)


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("|", "\\|").replace("%%", "%")
    return re.sub(r"(--[a-z][\w-]*)", r"`\1`", text)


# --------------------------------------------------------------------------- data, checks, models


def keys_table() -> str:
    """Names under which labels are looked for in extended XYZ files."""
    documented = parameters(DataKeys)
    rows = [
        (f"`{name}`", ", ".join(f"`{key}`" for key in keys), documented[name].meaning)
        for name, keys in DEFAULT_KEYS.items()
    ]
    return _table(("`data.keys` entry", "names tried, in this order", "meaning"), rows)


def units_table() -> str:
    """Units of data files."""
    rows = [(f"`{name}`", f"{value:.10g} Å") for name, value in LENGTHS.items()]
    rows += [(f"`{name}`", f"{value:.10g} eV") for name, value in ENERGIES.items()]
    return _table(("unit", "value"), rows)


def check_table() -> str:
    """What `CheckOptions` has."""
    documented = parameters(checking.CheckOptions)
    quick = importlib.import_module("openmm_nequiplr.checking.options").QUICK
    rows = []
    for field in dataclasses.fields(checking.CheckOptions):
        entry = documented[field.name]
        faster = json.dumps(quick[field.name]) if field.name in quick else ""
        rows.append((f"`{field.name}`", _default(field), faster, entry.unit, entry.meaning))
    return _table(("option", "default", "quick", "unit", "meaning"), rows)


def models_reference() -> str:
    """A card for every shipped model, out of its file."""
    parts = []
    for name, path in shipped_models().items():
        model = load_model(path)
        config, metadata = model.config, dict(model.metadata)
        size = f"{path.stat().st_size / 1000:.0f} kB, "
        size += f"{sum(p.numel() for p in model.parameters())} parameters"
        reach = f"{config.receptive_field:g} Å, beyond it the electrostatics"
        card = {"file": size, "elements": " ".join(config.type_names), "network sees": reach}
        card |= {key: _card_text(key, text) for key, text in metadata.items()}
        parts += [f"## `{name}` {{ #{name} }}", card.pop("title", "")]
        parts.append(_table(("", ""), [(key.replace("_", " "), v) for key, v in card.items()]))
        settings = {k: v for k, v in config.to_dict().items() if v is not None}
        rows = [(f"`{key}`", f"`{json.dumps(value)}`") for key, value in settings.items()]
        parts.append('??? note "Configuration"\n\n' + _indented(_table(("key", "value"), rows)))
    return "\n\n".join(parts)


def _card_text(key: str, text: str) -> str:
    from openmm_nequiplr.model import info

    if key == "check":
        text = info._check(text)
    elif key == "charge_range":
        ranges = json.loads(text).items()
        text = ", ".join(
            f"{element} {low:+.2f} to {high:+.2f} e" for element, (low, high) in ranges
        )
    return " ".join(text.split()).replace("|", "\\|")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


# ---------------------------------------------------------------------------------- Python names


def public_names() -> dict[str, list[str]]:
    """Every public name by the page on which it stands: once, and first in the root."""
    found: dict[str, list[str]] = {}
    seen: set[int] = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        names = [name for name in module.__all__ if not name.startswith("__")]
        found[package] = [name for name in names if id(getattr(module, name)) not in seen]
        seen |= {id(getattr(module, name)) for name in names}
    return found | MODULES


def elsewhere(package: str) -> dict[str, str]:
    """Names of a package that stand on the page of another, and which."""
    here, value = importlib.import_module(package), {}
    for other, names in public_names().items():
        if other == package:
            break
        module = importlib.import_module(other)
        value.update({id(getattr(module, name)): f"{other}.{name}" for name in names})
    names = (name for name in here.__all__ if not name.startswith("__"))
    return {n: value[id(getattr(here, n))] for n in names if id(getattr(here, n)) in value}


def api_reference(package: str) -> str:
    """The public names of a package or module."""
    parts = []
    for name in public_names()[package]:
        parts.append(f"::: {package}.{name}\n    options:\n      heading_level: 3")
    others = elsewhere(package) if package in PACKAGES else {}
    if others:
        links = ", ".join(f"[`{name}`][{full}]" for name, full in sorted(others.items()))
        parts.insert(0, f"Also here, described elsewhere: {links}.")
    return "\n\n".join(parts)


def errors_table() -> str:
    """The errors and warnings that the package raises on purpose."""
    module = importlib.import_module(ERRORS)
    rows = []
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == ERRORS and issubclass(kind, BaseException):
            bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
            rows.append((f"`{name}`", bases, introduction(kind)))
    return _table(("error", "is also", "when"), rows)


#: Parts that pages can ask for.
PARTS: Mapping[str, Callable[..., str]] = {
    "api": api_reference,
    "capabilities": capabilities.table,
    "check": check_table,
    "cli": cli_reference,
    "errors": errors_table,
    "keys": keys_table,
    "models": models_reference,
    "units": units_table,
    "yaml": yaml_reference,
}


def expand(markdown: str) -> str:
    """Put the generated parts where a page asks for them."""

    def part(match: re.Match[str]) -> str:
        name, *rest = match.group(1).split()
        return PARTS[name](*rest)

    return re.sub(r"^<!-- generated: (.+?) -->$", part, markdown, flags=re.MULTILINE)
