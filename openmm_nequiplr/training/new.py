"""Training files from data files: ``nequiplr init``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..checks import check_positive
from ..data.checking import Say
from ..data.keys import DEFAULT_KEYS, DataKeys, FoundKeys, with_names
from ..data.quantities import LABELS
from ..data.reading import read_structures
from ..data.structure import Structure
from ..data.units import DataUnits
from ..errors import InputError, describe
from ..pretrained import model_path, named_models
from ..writing import replace_file
from ..yaml_files import parse_yaml
from .config import TrainingConfig, parse_config
from .inspection import DataSummary
from .preparation import Parts, divide
from .proposal import propose

#: Default length of the proposed training, min.
MINUTES = 60.0
#: Words that occur in the names of labels.
_WORDS = {"energy": "energy", "forces": "force", "charges": "charge", "dipole": "dipole"}


def new_config(
    data: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    force: bool = False,
    max_time: float = MINUTES,
    timing: float = 20.0,
    distill: str | Path | None = None,
    format: str | None = None,
    length_unit: str | None = None,
    energy_unit: str | None = None,
    say: Say = print,
    **key_names: str | None,
) -> Path:
    """Inspect data and write a training file for them.

    Parameters
    ----------
    data : sequence of path
        Data files.
    output : path, optional
        The file to write; by default a file in the working directory with the name of the first
        data file and the suffix ``.yaml``.
    force : bool
        Replace an existing file.
    max_time : float, min
        Time limit of the training.
    timing : float, s
        Time for which optimiser steps of the training are timed; 0 for no timing.
    distill : path, optional
        Model file, or name of a model. The training file is then for a cheap inner potential for
        multiple time steps, which learns the forces of this model. The data need no labels.
    format, length_unit, energy_unit : str, optional
        Format and units of the data files, see :class:`.config.DataConfig`.
    say : callable
        Called with each line of text about the data.
    **key_names : str
        ``energy_key``, ``forces_key``, …: names of the labels.

    Returns
    -------
    path
        The file that was written.

    Raises
    ------
    FileNotFoundError, InputError
        If the data or options are invalid, or the training file exists.
    """
    files = [Path(each) for each in data]
    if not files:
        raise InputError(describe("data", "no file", "one file or more"))
    check_positive("max_time", max_time, " (min)")
    ending = ".yaml" if distill is None else "-inner.yaml"
    target = Path(f"{_stem(files[0])}{ending}") if output is None else Path(output)
    if target.exists() and not force:
        raise InputError(describe("output", f"{target}, which exists", "a new file, or --force"))
    if not target.parent.is_dir():
        raise InputError(describe("output", str(target), "a file in a directory that exists"))
    keys, units = with_names(DataKeys(), key_names), DataUnits(length_unit, energy_unit)
    structures, keys, found = _read(files, keys, format, units, say)
    summary = DataSummary(tuple(structures), found)
    lines = summary.lines()
    for line in lines:
        say(line)
    if distill is None:
        _check_labelled(summary)
    entries = _data_entries(files, target, keys, format, units)
    heading = [f"Written by nequiplr init for {', '.join(each.name for each in files)}:", *lines]
    settings = (summary, entries, _stem(target), max_time)
    teacher = None if distill is None else _named(distill, target.parent)
    config = parse_config(parse_yaml(propose(*settings, "", teacher)))
    validation = structures if config.data.validation else ()
    parts = divide(config, structures, validation)
    if "forces" not in summary.labels and distill is not None:
        timing = 0.0  # steps cannot be timed without labels
    durations = _timed(config, parts, target, timing, say)
    if durations:
        heading += ["", "Timed when this was written:", *durations]
    command = f"nequiplr train {shlex.quote(str(target))}"
    replace_file(target, propose(*settings, "\n".join([*heading, "", command]), teacher))
    say(f"wrote {target}; next: {command}")
    return target


def _stem(path: Path) -> str:
    """Name of a file without suffixes, for a directory."""
    return path.name.partition(".")[0] or "training"


def _read(
    files: Sequence[Path], keys: DataKeys, format: str | None, units: DataUnits, say: Say
) -> tuple[Sequence[Structure], DataKeys, FoundKeys]:
    """Structures, the keys with which they are read, and the keys that were found.

    If none of the usual names of a label occurs, and exactly one key resembles it, that key is
    used.
    """
    found = FoundKeys()
    said: list[str] = []
    structures = read_structures(files, keys, format, units, said.append, found)
    guessed = _guess(keys, found)
    if guessed != keys:
        again = FoundKeys()
        saying: list[str] = []
        try:
            structures = read_structures(files, guessed, format, units, saying.append, again)
        except InputError:  # the key resembles a label, but contains something else
            guessed = keys
        else:
            found, said = again, saying
            for quantity, name in guessed.named().items():
                if getattr(keys, quantity) is None:
                    said.append(f"{quantity}: read from {name!r}, the only key that looks like it")
    for line in said:
        say(line)
    return structures, guessed, found


def _guess(keys: DataKeys, found: FoundKeys) -> DataKeys:
    """Keys, completed for each missing label by the only key that resembles it."""
    named = {each.name: getattr(keys, each.name) for each in fields(keys)}
    known = {name for names in DEFAULT_KEYS.values() for name in names}
    for quantity, word in _WORDS.items():
        like = [n for n in found.ignored if word in n.lower() and "total" not in n.lower()]
        if quantity not in found.used and len(like) == 1 and like[0] not in known:
            named[quantity] = like[0]
    return DataKeys(**named)


def _check_labelled(summary: DataSummary) -> None:
    """Refuse data without labels, or with structures without labels."""
    if summary.labels:
        bare = summary.unlabelled
        if bare:
            got = f"{len(bare)} of {len(summary.structures)} without one, the first is {bare[0]}"
            expected = f"structures with a label ({', '.join(summary.labels)})"
            raise InputError(describe("data", got, expected))
        return
    ignored = ", ".join(sorted(summary.keys.ignored))
    got = f"none of them{f', but {ignored}' if ignored else ''}"
    expected = f"labels ({', '.join(LABELS)}; --energy-key, --forces-key, … name others)"
    raise InputError(describe("data", got, expected))


def _data_entries(
    files: Sequence[Path], target: Path, keys: DataKeys, format: str | None, units: DataUnits
) -> dict[str, Any]:
    """Entries of ``data`` that specify the files, keys, format and units."""
    paths = [_relative(each, target.parent) for each in files]
    entries: dict[str, Any] = {"train": paths[0] if len(paths) == 1 else paths}
    if format is not None:
        entries["format"] = format
    if keys.named():
        entries["keys"] = keys.named()
    given = {each.name: getattr(units, each.name) for each in fields(units)}
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        entries["units"] = given
    return entries


def _named(model: str | Path, directory: Path) -> str:
    """Path of a model file relative to a directory, or the validated name of a model."""
    path = model_path(model)
    return str(model) if str(model) in named_models() else _relative(path, directory)


def _relative(path: Path, directory: Path) -> str:
    """Path relative to a directory; absolute if it is further away than a sibling directory."""
    try:
        near = Path(os.path.relpath(path.resolve(), directory.resolve()))
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
    return (path.resolve() if near.parts[:2] == ("..", "..") else near).as_posix()


def _timed(
    config: TrainingConfig, parts: Parts, target: Path, seconds: float, say: Say
) -> list[str]:
    """Lines of text on time and memory from timed steps; none without timing."""
    if seconds <= 0:
        return []
    try:
        from .estimate import estimate
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lightning":
            raise
        say("no estimate of the time: training needs Lightning, pip install openmm-nequiplr[train]")
        return []
    say(f"timing steps of the training, for {seconds:g} s at most …")
    lines = estimate(config, parts, target, seconds).durations(config)
    for line in lines:
        say(line)
    return lines
