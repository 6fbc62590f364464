"""Dry run: a training is read, checked and timed, but not carried out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.checking import Say
from ..data.reading import unsaid
from ..threads import limited_threads
from .config import EquilibrationConfig, TrainingConfig, load_config
from .estimate import SECONDS, Estimate, estimate
from .initial import earlier_configs
from .loss import label_of
from .preparation import Parts, read_parts, threads_of
from .recorder import BEST_MODEL, Recorder
from .run import check_output
from .trainer import make_trainer


def dry_run(
    config_path: str | Path,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
    progress: bool = True,
) -> Estimate:
    """Check a training as :func:`.run.train` would, and time a few optimiser steps.

    Nothing is written.

    Parameters
    ----------
    config_path : path
    resume : bool
        Whether the output directory may already contain the training.
    overrides : dict, optional
        Values that replace those of the file, with dotted keys.
    seconds : float
        Time after which no further step is started.
    progress : bool
        Print what would be trained.

    Raises
    ------
    InputError
        If the configuration or the data are invalid.
    """
    config, _ = load_config(config_path, overrides)
    say: Say = print if progress else unsaid
    earlier = earlier_configs(config, config_path)
    check_output(config, earlier.values(), resume)
    make_trainer(config, Recorder(Path(config.output), {}))
    config = _with_start(config, earlier, say)
    parts = read_parts(config, config_path, say)
    with limited_threads(threads_of(config, parts.train)):
        found = estimate(config, parts, config_path, seconds)
    for line in (*_labels(config, parts), *found.lines(config)):
        say(line)
    say(f"dry run: nothing was written; output would be in {config.output}")
    return found


def _with_start(
    config: TrainingConfig, earlier: Mapping[Path, TrainingConfig], say: Say
) -> TrainingConfig:
    """Configuration with a ``start_from`` that can be loaded.

    If that model is not trained yet, a new one with the same configuration replaces it: its steps
    take the same time.
    """
    if not earlier:
        return config
    path, *_ = earlier
    trained = Path(earlier[path].output) / BEST_MODEL
    if trained.is_file():
        return dataclasses.replace(config, start_from=str(trained.resolve()))
    say(f"start_from: {path} would be trained first; try it alone for its time")
    *_, first = earlier.values()
    return dataclasses.replace(
        config, start_from=None, model=first.model, equilibration=EquilibrationConfig()
    )


def _labels(config: TrainingConfig, parts: Parts) -> list[str]:
    """Lines with the number of training structures that have each label used in the loss."""
    found = []
    for name, weight in config.loss.weights().items():
        attribute = label_of(name)
        if weight > 0:
            count = sum(each.has_label(attribute) for each in parts.train)
            found.append(f"{attribute} of {count} (weight {weight:g})")
    return [f"labels: {', '.join(found)} training structures"]
