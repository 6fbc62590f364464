"""Restarts: settings, checkpoint and output files of the earlier run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError, describe
from .checkpoint import Checkpoint, load_checkpoint
from .options import MDOptions
from .runfiles import RunFiles
from .serialization import ModelFile

# Settings whose change on a restart is reported.
_PHYSICAL = (
    "ensemble", "timestep", "inner", "inner_steps", "temperature", "friction", "pressure",
    "barostat", "barostat_axes", "long_range", "ewald_tolerance", "precision", "solver",
    "charge_tolerance", "inner_sha256",
)  # fmt: skip
#: Settings that must not change during a run, because they apply to all frames of its files.
_FIXED = (
    "total_charge", "electric_field", "slab", "charge_groups", "group_charges", "electrodes",
    "electrode_voltage", "hydrogen_mass",
)  # fmt: skip
_DIGEST, _INNER_DIGEST = "model_sha256", "inner_sha256"
_NEW_RUN = "to go on with another one, begin a run from the last structure (final.extxyz)"
#: Options of a single call, which a restart does not inherit.
OF_ONE_CALL = {"steps", "structure", "frame", "minimize", "restart", "quiet", "output"}


def settings_of(options: MDOptions) -> dict[str, Any]:
    """Options and digest of the model file, as JSON values for the settings file."""
    values = dataclasses.asdict(options)
    values |= {_DIGEST: ModelFile.of(options.model).digest, "version": __version__}
    inner = options.inner
    values[_INNER_DIGEST] = None if inner is None else ModelFile.of(inner, "inner").digest
    plain = lambda value: str(value) if isinstance(value, Path) else value.item()  # noqa: E731
    return json.loads(json.dumps(values, default=plain))


def continued_settings(options: MDOptions, earlier: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that continues with other options."""
    now, kept = settings_of(options), OF_ONE_CALL | (earlier.keys() & _FIXED)
    return {**earlier, **{name: now[name] for name in now if name not in kept}}


def compare_settings(options: MDOptions, earlier: dict[str, Any]) -> list[str]:
    """Differences between the options of a restart and those of the earlier run, one per line.

    Parameters
    ----------
    options : MDOptions
    earlier : dict
        Content of the settings file of the earlier run.

    Raises
    ------
    InputError
        If the model, the total charge or another setting that must not change is different.
    """
    now, earlier = _in_order(settings_of(options)), _in_order(earlier)
    if earlier.get(_DIGEST) != now[_DIGEST]:
        got = f"{options.model}, with other contents than {earlier.get('model')} had at the start"
        raise InputError(f"{describe('model', got, 'the model of the run')}; {_NEW_RUN}")
    for name in _FIXED:
        # earlier versions without this option ran without its effect
        before = earlier.get(
            name, now[name] if name == "total_charge" else getattr(MDOptions, name)
        )
        if now[name] != before:
            expected = f"{_brief(before)}, as in the run that is continued"
            raise InputError(f"{describe(name, now[name], expected)}; {_NEW_RUN}")
    return [
        f"note: {name} is {_brief(now[name])} from here on, it was {_brief(earlier[name])}"
        for name in _PHYSICAL
        if name in earlier and now[name] != earlier[name]
    ]


def _in_order(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with electrode atoms sorted by index and charge groups by their first atoms."""
    found = dict(settings)
    if found.get("electrodes"):
        found["electrodes"] = [sorted(each) for each in found["electrodes"]]
    if found.get("charge_groups"):
        place = {label: k for k, label in enumerate(dict.fromkeys(found["charge_groups"]))}
        found["charge_groups"] = [place[label] for label in found["charge_groups"]]
        found["group_charges"] = [found["group_charges"][label] for label in place]
    return found


def _brief(value: Any) -> str:
    """A value as text, truncated if it is long."""
    text = str(value)
    return text if len(text) < 60 else f"{text[:50]} …"


def find_checkpoint(files: RunFiles, num_atoms: int, periodic: bool) -> Checkpoint:
    """Read the checkpoint, and check that the other files belong to it.

    Raises
    ------
    InputError
        If it is damaged, or files are missing, shorter than at the checkpoint, or changed. The
        message states whether the previous checkpoint can be used.
    """
    try:
        return _sound(files, files.checkpoint, num_atoms, periodic)
    except InputError as error:
        try:
            previous = _sound(files, files.previous_checkpoint, num_atoms, periodic)
        except (InputError, OSError):
            raise error from None
        name, step = files.previous_checkpoint.name, previous.state.getStepCount()
        raise InputError(
            f"{error}; {name} (step {step}) is whole: rename it to {files.checkpoint.name} to "
            "continue from there"
        ) from error


def _sound(files: RunFiles, path: Path, num_atoms: int, periodic: bool) -> Checkpoint:
    checkpoint = load_checkpoint(path, num_atoms, periodic)
    differences = files.differences(checkpoint.marks)
    if differences:
        step = checkpoint.state.getStepCount()
        expected = f"the files of the run as they were at its checkpoint (step {step})"
        got = f"others in {files.directory} ({'; '.join(differences)})"
        raise InputError(f"restart: expected {expected}, got {got}")
    return checkpoint
