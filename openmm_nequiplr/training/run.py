"""Training of a model from a configuration file."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ..console import say
from ..data.checking import Say
from ..data.dataset import GraphDataset
from ..data.reading import unsaid
from ..data.store import remove_others
from ..data.structure import Structure
from ..errors import ConvergenceError, InputError, describe
from ..locking import directory_lock
from ..model import ModelConfig, NequIPLRPotential, load_model, save_model
from ..threads import limited_threads
from ..total_charge import charges_entry
from ..writing import PART, replace_file
from .checkpoints import CHECKPOINT, has_checkpoint, readable_checkpoint, set_aside
from .config import TrainingConfig, load_config, model_file
from .continuation import check_unchanged, record_of
from .coverage import charge_ranges
from .evaluate import Metrics, evaluate_model, format_table
from .initial import earlier_configs
from .module import TrainingModule
from .preparation import Parts, prepare, read_parts, threads_of
from .recorder import BEST_MODEL, LAST_MODEL, Recorder
from .refit import refit_energy_shifts
from .signals import ended_by_signals
from .splits import CONFIG_COPY, write_split
from .start import learn_charges_first
from .trainer import make_trainer
from .trainer import writes as _writes

METRICS = "metrics.json"
#: Subdirectory of the output in which large sets of structures are stored.
STORE = "structures"
# Number of structures for the first refit of the energy shifts to the electrostatic energy.
_REFITTED_AT_FIRST = 8


@dataclass(frozen=True)
class TrainingResult:
    """Results of a training.

    Parameters
    ----------
    model_path : path
        Model file with the lowest validation loss.
    last_model_path : path
        Model file of the last epoch.
    validation, test : Metrics
        Errors of the model with the lowest validation loss on the validation and test sets; None
        without a test set.
    validation_structures : sequence of Structure
    """

    model_path: Path
    last_model_path: Path
    validation: Metrics
    test: Metrics | None
    validation_structures: Sequence[Structure]

    @property
    def model_paths(self) -> tuple[Path, ...]:
        """Tuple of the model file, as in the result of a committee."""
        return (self.model_path,)


def train(
    config_path: str | Path,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = True,
    accept_changes: bool = False,
) -> TrainingResult | None:
    """Train a model as specified by a YAML file.

    The output directory contains ``model.safetensors`` (lowest validation loss, averaged
    weights), ``model_last.safetensors``, ``last.ckpt`` (of the last epoch) and ``previous.ckpt``
    (of the epoch before), ``metrics.csv``, ``learning_curve.png``, ``config.yaml`` (as used),
    ``split.json`` and ``metrics.json``.

    Parameters
    ----------
    config_path : path
        See `TrainingConfig`.
    resume : bool
        Continue from ``last.ckpt`` of the output directory. The result is the same as without
        the interruption. A training of ``start_from`` always continues automatically.
    overrides : dict, optional
        Values that replace those of the file, with dotted keys.
    progress : bool
        Show progress and results.
    accept_changes : bool
        Resume although the data or settings have changed.

    Returns
    -------
    TrainingResult, or None on all but the first of several processes

    Raises
    ------
    InputError
        If the configuration or the data are invalid; with ``resume``, if there is no training to
        resume or it was started with other data or settings; without ``resume``, if the output
        directory already contains a training.
    DirectoryInUseError
        If another process trains in the output directory.
    Interrupted
        After SIGINT or SIGTERM; the message explains how to continue.
    ConvergenceError
        If the loss is no longer finite.
    """
    config, raw = load_config(config_path, overrides)
    output, progress = Path(config.output), progress and _writes(config)
    earlier = earlier_configs(config, config_path)
    check_output(config, earlier.values(), resume)

    def advice() -> str:
        if not has_checkpoint(output):
            return "nothing of this training is kept yet"
        return "the same command with --resume continues after the last complete epoch"

    with ended_by_signals(advice):
        if earlier:
            start = _train_first(next(iter(earlier)), progress)
            if start is None:
                return None
            config = dataclasses.replace(config, start_from=str(start.resolve()))
        lock = directory_lock(output) if _writes(config) else nullcontext()
        with lock:
            check_output(config, earlier.values(), resume)
            if _writes(config):
                for part in output.glob(f"*{PART}"):  # left by a killed process
                    part.unlink()
            resume = resume and has_checkpoint(output)
            say = print if progress else unsaid
            parts = read_parts(config, config_path, say, output / STORE)
            with limited_threads(threads_of(config, parts.train)):
                return _train(config, raw, config_path, parts, resume, accept_changes, progress)


def check_output(config: TrainingConfig, earlier: Iterable[TrainingConfig], resume: bool) -> None:
    """Check whether the output directory permits a new or a resumed training.

    One of the configurations ``earlier``, which are trained first, may be resumed instead.

    Raises
    ------
    InputError
        If there is no training to resume, or a new one would overwrite another training.
    """
    output = Path(config.output)
    there = has_checkpoint(output)
    begun = any(has_checkpoint(Path(each.output)) for each in earlier)
    if resume and not there and not begun:
        expected = "a checkpoint of an earlier run"
        raise InputError(describe("resume", f"no {output / CHECKPOINT}", expected))
    if there and not resume:
        got = f"{output}, which holds a training"
        expected = "another directory (--resume continues the training that is there)"
        raise InputError(describe("output", got, expected))


def _train(
    config: TrainingConfig,
    raw: Mapping[str, Any],
    config_path: str | Path,
    parts: Parts,
    resume: bool,
    accept_changes: bool,
    progress: bool,
) -> TrainingResult | None:
    """Train in the locked output directory."""
    output, say = Path(config.output), print if progress else unsaid
    named = dataclasses.replace(config, start_from=raw.get("start_from"))
    start = None
    if config.start_from is not None:
        start = load_model(model_file(config.start_from, config_path, "start_from"))
    record = record_of(named, parts.train, parts.validation, parts.teacher, start)
    checkpoint = _continue(config, record, accept_changes, say) if resume else None
    if _writes(config):
        remove_others(output / STORE, parts.stores)
    model, train_data, validation_data = prepare(config, parts, config_path)
    metadata = _metadata(config, raw, parts, model.config)
    recorder = Recorder(output, metadata, progress, record)
    if not resume:
        _warm_up(model, config, train_data, progress)
    module = TrainingModule(model, config, train_data, validation_data)
    trainer = make_trainer(config, recorder)
    if trainer.is_global_zero:
        _write_record(output, config, raw, parts, config_path)
        if progress:
            say(_headline(model, parts, output))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        try:
            trainer.fit(module, ckpt_path=None if checkpoint is None else str(checkpoint))
        except torch.linalg.LinAlgError as error:
            got = f"{error} in epoch {trainer.current_epoch}"
            expected = "charges that can be solved for; lower optimizer.lr or set gradient_clip"
            raise ConvergenceError(describe("training", got, expected)) from error
    if not trainer.is_global_zero:
        return None
    return _finish(config, output, parts, train_data, validation_data, progress)


def _continue(
    config: TrainingConfig, record: Mapping[str, Any], accept_changes: bool, say: Say
) -> Path:
    """Path of the checkpoint to continue from, after comparison of data and settings."""
    path, contents, damaged = readable_checkpoint(Path(config.output))
    for line in damaged:
        say(f"resume: {line}; going on from {path}")
    before = contents["callbacks"].get("Recorder", {}).get("record")
    line = check_unchanged(before, record, accept_changes)
    if line:
        say(line)
    done = int(contents["epoch"]) + 1
    if done > config.max_epochs:
        expected = f"at least {done}, the epochs that are done"
        raise InputError(describe("max_epochs", config.max_epochs, expected))
    if damaged:  # it must not replace the readable one at the next checkpoint
        set_aside(Path(config.output))
    return path


def _train_first(config_path: str | Path, progress: bool) -> Path | None:
    """Model file of ``start_from``, trained first if necessary; None if interrupted."""
    config, raw = load_config(config_path)
    output = Path(config.output)
    record = output / CONFIG_COPY
    if record.is_file() and yaml.safe_load(record.read_text(encoding="utf-8")) != raw:
        got = f"{output} with a training of other settings"
        raise InputError(describe("start_from", got, f"that of {config_path}, or nothing there"))
    if (output / METRICS).is_file():
        if progress:
            say(f"start_from: {config_path} was trained before, in {output}")
        return output / BEST_MODEL
    if progress:
        say(f"start_from: training {config_path} first, in {output}")
    begun = has_checkpoint(output)
    result = train(config_path, resume=begun, progress=progress)
    return None if result is None else result.model_path


def _warm_up(
    model: NequIPLRPotential,
    config: TrainingConfig,
    train_data: GraphDataset,
    progress: bool,
) -> None:
    """Train the charges first if configured, then fit the energy shifts to the electrostatics."""
    if config.equilibration.charge_epochs > 0:
        learn_charges_first(model, config, train_data, progress)
    if config.refit_energy_shifts and config.data.energy_shifts is None:
        size = config.validation_batch_size
        refit_energy_shifts(model, train_data, size, most=_REFITTED_AT_FIRST)


def _metadata(
    config: TrainingConfig, raw: Mapping[str, Any], parts: Parts, model: ModelConfig
) -> dict[str, str]:
    """Provenance of the model, for the metadata of its file."""
    files = (*config.data.files("train"), *config.data.files("validation"))
    names = [Path(each.path).name for each in files]
    kinds = {model.sees_images(bool(structure.pbc)) for structure in parts.train}
    return {
        "training_data": ", ".join(names),
        "periodic": str(kinds.pop()) if len(kinds) == 1 else "both",
        **charges_entry(structure.total_charge for structure in parts.train),
        "num_train": str(len(parts.train)),
        "num_validation": str(len(parts.validation)),
        "num_test": str(len(parts.test)),
        **({} if config.start_from is None else {"start_from": str(raw["start_from"])}),
        "training_config": yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True),
    }


def _write_record(
    output: Path,
    config: TrainingConfig,
    raw: Mapping[str, Any],
    parts: Parts,
    config_path: str | Path,
) -> None:
    text = yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True)
    replace_file(output / CONFIG_COPY, text)
    if parts.split is not None:
        write_split(output, parts.split, config.data, config_path)


def _headline(model: NequIPLRPotential, parts: Parts, output: Path) -> str:
    weights = sum(p.numel() for p in model.parameters())
    config = model.config
    return (
        f"training on {len(parts.train)} structures, {len(parts.validation)} for validation, "
        f"{len(parts.test)} for the test\n"
        f"model: {weights} weights, elements {' '.join(config.type_names)}, receptive field "
        f"{config.receptive_field:g} Å, {config.avg_num_neighbors:.3g} neighbours\n"
        f"output: {output}"
    )


def _finish(
    config: TrainingConfig,
    output: Path,
    parts: Parts,
    train_data: GraphDataset,
    validation_data: GraphDataset,
    progress: bool,
) -> TrainingResult:
    """Evaluate the best model, and complete the metadata of its file."""
    path = output / BEST_MODEL
    model = load_model(path)
    if config.refit_energy_shifts and config.data.energy_shifts is None:
        refit_energy_shifts(model, train_data, config.validation_batch_size)
    size = config.validation_batch_size
    validation = evaluate_model(model, validation_data, batch_size=size, verbose=False)
    test = None
    if parts.test:
        test = evaluate_model(model, parts.test, output / "test", batch_size=size, verbose=False)
    results = {"validation": validation.to_dict()}
    if test is not None:
        results["test"] = test.to_dict()
    replace_file(output / METRICS, json.dumps(results, indent=1) + "\n")
    figures = {name: json.dumps(value) for name, value in results.items()}
    figures["charge_range"] = json.dumps(charge_ranges(model, train_data, size))
    save_model(model, path, {**model.metadata, **figures})
    if progress:
        for name, metrics in (("validation", validation), ("test", test)):
            if metrics is not None:
                say(f"\n{name}, {metrics.num_structures} structures\n{format_table(metrics)}")
        say(f"\nmodel: {path}")
    return TrainingResult(path, output / LAST_MODEL, validation, test, parts.validation)
