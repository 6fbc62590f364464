"""Committees: one training for each of several seeds, one after another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import say
from ..data.structure import Structure
from ..errors import InputError, describe
from ..locking import directory_lock
from ..model.committee import member_path
from ..writing import replace_file
from .checkpoints import has_checkpoint
from .config import TrainingConfig, load_config
from .preparation import read_parts
from .run import train
from .spread import CommitteeMetrics, evaluate_committee, format_committee
from .trainer import one_process

#: Name of the record in the directory of a committee.
RECORD = "committee.json"


@dataclass(frozen=True)
class CommitteeResult:
    """Results of the training of a committee.

    Parameters
    ----------
    directory : path
    model_paths : tuple of path
        One model file for each seed.
    metrics : CommitteeMetrics
        On the test set, or on the validation set if there is no test set.
    validation_structures : sequence of Structure
    """

    directory: Path
    model_paths: tuple[Path, ...]
    metrics: CommitteeMetrics
    validation_structures: Sequence[Structure]


def train_committee(
    config_path: str | Path,
    seeds: Sequence[int],
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = True,
    accept_changes: bool = False,
) -> CommitteeResult:
    """Train one model for each seed, all on the same split of the data.

    The output directory of the configuration becomes the directory of the committee. It contains
    a directory ``seed_N`` with the output of :func:`.run.train` for each model,
    ``committee.json``, and ``spread/`` with the errors and the spread of the committee, as tables
    and plots.

    Parameters
    ----------
    config_path : path
        See :class:`.config.TrainingConfig`; its ``seed`` is not used.
    seeds : sequence of int
        A single number N stands for the seeds 0 … N−1.
    resume : bool
        Continue a committee: finished models are kept, an unfinished training continues from its
        checkpoint, and seeds may be added.
    overrides : dict, optional
        Values that replace those of the file, with dotted keys.
    progress : bool
        Show progress and results.
    accept_changes : bool
        Continue although the data or settings have changed.

    Raises
    ------
    InputError
        If the seeds or the configuration are invalid, or the directory already contains a
        committee and ``resume`` is not set, or that committee was trained on other data.
    ConvergenceError
        If a loss is no longer finite.
    DirectoryInUseError
        If another process trains in the output directory.
    Interrupted
        If a training is interrupted; ``resume`` continues it.
    """
    seeds = check_seeds(seeds)
    config, raw = load_config(config_path, overrides)
    _check_one_process(config)
    parent = Path(config.output)
    with directory_lock(parent):
        finished = _begin(parent, raw, resume)
        for number, seed in enumerate(seeds, start=1):
            if seed in finished and member_path(parent, seed).is_file():
                _say(progress, f"seed {seed} ({number} of {len(seeds)}): finished before")
                continue
            _say(progress, f"\nseed {seed} ({number} of {len(seeds)})")
            directory = member_path(parent, seed).parent
            own = {**(overrides or {}), "seed": seed, "output": str(directory)}
            begun = resume and has_checkpoint(directory)
            options = {"accept_changes": True} if accept_changes else {}
            result = train(config_path, resume=begun, overrides=own, progress=progress, **options)
            if result is None:
                raise KeyboardInterrupt
            finished.append(seed)
            _write_record(parent, finished, raw)
        return _judge(config, config_path, parent, seeds, progress)


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Validate the seeds of a committee; a single number N stands for 0 … N−1.

    Raises
    ------
    InputError
        If there are fewer than two seeds, one is repeated, or one is not a non-negative integer.
    """
    given = list(seeds)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in given)
    if len(given) == 1 and whole:
        given = list(range(given[0]))
    if not whole or len(given) < 2 or len(set(given)) != len(given):
        expected = "two different whole numbers of at least 0 or more, or the number of models"
        raise InputError(describe("seeds", list(seeds), expected))
    return given


def _check_one_process(config: TrainingConfig) -> None:
    """Refuse several processes: each would start the whole committee again."""
    if not one_process(config.trainer):
        expected = (
            "one device for a committee (several: train each seed by itself, with --set seed=N "
            "output=…/seed_N)"
        )
        raise InputError(describe("trainer.devices", dict(config.trainer), expected))


def _begin(parent: Path, raw: Mapping[str, Any], resume: bool) -> list[int]:
    """Begin or continue a committee, and return the seeds that are already finished."""
    path = parent / RECORD
    there = path.is_file() or any(parent.glob("seed_*"))
    if there and not resume:
        expected = "a directory without a committee; --resume goes on with the one that is there"
        raise InputError(describe("output", str(parent), expected))
    finished: list[int] = []
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            finished, data = [int(s) for s in record["finished"]], record["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(describe("resume", f"{path} ({error})", "a readable file")) from error
        if data != _plain(raw["data"]):
            expected = f"the data and split of the committee in {parent}"
            raise InputError(describe("data", raw["data"], expected))
    parent.mkdir(parents=True, exist_ok=True)
    _write_record(parent, finished, raw)
    return finished


def _write_record(parent: Path, finished: Sequence[int], raw: Mapping[str, Any]) -> None:
    """Replace the record atomically."""
    text = json.dumps({"finished": sorted(finished), "data": _plain(raw["data"])}, indent=1)
    replace_file(parent / RECORD, text + "\n")


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values, default=str))


def _judge(
    config: TrainingConfig,
    config_path: str | Path,
    parent: Path,
    seeds: Sequence[int],
    progress: bool,
) -> CommitteeResult:
    parts = read_parts(config, config_path)
    name, structures = ("test", parts.test) if parts.test else ("validation", parts.validation)
    paths = tuple(member_path(parent, seed) for seed in seeds)
    metrics = evaluate_committee(
        paths,
        structures,
        output=parent / "spread",
        batch_size=config.validation_batch_size,
        verbose=False,
    )
    _say(progress, f"\n{name}, {len(structures)} structures, {format_committee(metrics)}")
    _say(progress, f"\ncommittee: {parent}")
    return CommitteeResult(parent, paths, metrics, parts.validation)


def _say(progress: bool, text: str) -> None:
    if progress:
        say(text)
