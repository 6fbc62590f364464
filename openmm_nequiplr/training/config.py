"""Training configuration: a YAML file read into frozen, validated dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checks import check_choice
from ..data.keys import DataKeys
from ..data.units import DataUnits
from ..errors import InputError, describe, notify
from ..model import ModelConfig
from ..pretrained import model_path
from ..yaml_files import read_yaml
from .harmonic import HarmonicConfig
from .limits import check_ranges
from .parsing import build, override, places_of
from .sections import (
    EquilibrationConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    above,
    at_least,
)


@dataclass(frozen=True)
class DataFile:
    """A data file with its own keys or weight, in place of a plain path.

    Parameters
    ----------
    path : str
    keys : dict
        Names of the labels in this file, see `DataKeys`; by default those of ``data.keys``.
    weight : float
        Factor on the weights of its structures in the loss. It affects neither how often the
        structures are used nor the reported errors.
    """

    path: str
    keys: DataKeys = field(default_factory=DataKeys)
    weight: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """Reference data: files, their split, keys and units.

    Parameters
    ----------
    train : path, dict, or list of them
        Training files. Paths are relative to the configuration file. A mapping contains the
        ``path`` of a file and, optionally, its own ``keys``, which take precedence over ``keys``
        below, and a ``weight``, which multiplies the weights of its structures in the loss.
    validation : path, dict, or list of them, optional
        Validation files. Without them, the validation set is drawn at random from ``train``.
    test : path, dict, or list of them, optional
        Files on which the finished model is evaluated.
    num_train : int or float, optional
        Size of the training set drawn from ``train``: a number of structures, or a fraction below
        1. By default, all structures that are not used for validation or test.
    num_validation, num_test : int or float
        Size of the validation (test) set drawn from ``train``: a number of structures, or a
        fraction below 1. Ignored if ``validation`` (``test``) specifies files.
    split_seed : int
        Seed of the random split.
    format : {"extxyz", "runner"}, optional
        Format of the files; by default it is detected from the file.
    keys : dict
        Names of the labels in the files, see `DataKeys`.
    units : dict
        Units of the files, see `DataUnits`.
    energy_shifts : dict, optional, eV
        Energy of an isolated atom of each element; by default from a least-squares fit to the
        training set.
    per_species_scales : bool
        Scale energies by the rms force of each element instead of the rms force of all atoms.
    memory : float, GB
        Memory for neighbour lists and Coulomb matrices that are kept from epoch to epoch, a fifth
        of it for validation. Those that do not fit are computed again in each epoch.
    """

    train: tuple[str | DataFile, ...]
    validation: tuple[str | DataFile, ...] = ()
    test: tuple[str | DataFile, ...] = ()
    num_train: int | float | None = None
    num_validation: int | float = 0.1
    num_test: int | float = 0
    split_seed: int = 0
    format: str | None = None
    keys: DataKeys = field(default_factory=DataKeys)
    units: DataUnits = field(default_factory=DataUnits)
    energy_shifts: Mapping[str, float] | None = None
    per_species_scales: bool = False
    memory: float = 0.75

    def __post_init__(self) -> None:
        at_least("data.memory", self.memory, 0.0)
        for part in ("train", "validation", "test"):
            for file in self.files(part):
                at_least(f"data.{part}.weight of {file.path}", file.weight, 0.0)

    def files(self, part: str) -> list[DataFile]:
        """Files of ``train``, ``validation`` or ``test``, each with its complete keys."""
        files = [f if isinstance(f, DataFile) else DataFile(f) for f in getattr(self, part)]
        return [replace(f, keys=replace(self.keys, **f.keys.named())) for f in files]


@dataclass(frozen=True)
class TrainingConfig:
    """Complete configuration of a training.

    Parameters
    ----------
    data : dict
        The reference data, see `DataConfig`.
    model : dict
        Fields of `ModelConfig`. ``type_names`` may be omitted, and ``avg_num_neighbors``,
        ``charge_min``, ``charge_max`` and ``shortest_distances`` may be ``auto``: they are then
        taken from the data. Defaults are those of `ModelConfig`, except for the settings that
        prevent a new model from unbounded extrapolation (`SAFE_DEFAULTS`):
        ``electrostatic_energy: coulomb``, ``electronegativity_bound: 6``, ``zbl: true`` and
        ``shortest_distances: auto``.
    start_from : str, optional
        Model file, relative to the configuration, or name of a shipped model. The training starts
        from its weights instead of random ones, and `model` may be empty. The energy shifts are
        fitted again, so the data may come from another level of theory. Elements that the model
        lacks are added with random weights. A configuration (``.yaml``) stands for the model that
        it trains; this model is trained first if necessary.
    distill_from : str, optional
        Model file, relative to the configuration, or name of a shipped model. Its energies and
        forces are learned instead of the labels of the data, which then need no labels. Copies of
        `harmonic` are also labelled by this model instead of by springs.
    freeze : list of str
        Parts of the model that are not trained: ``electronegativity_stage``, ``energy_stage``,
        ``hardness_parameter``, ``charge_offset``, or parts of these, such as
        ``energy_stage.convolutions``.
    output : str
        Output directory, relative to the working directory.
    loss, equilibration, harmonic, optimizer, schedule : dict
        Sections of the configuration, see `LossConfig`, `EquilibrationConfig`, `HarmonicConfig`,
        `OptimizerConfig`, `ScheduleConfig`.
    batch_size : int
        Structures per optimiser step and process.
    batch_atoms : int, optional
        Approximate number of atoms per optimiser step and process, in place of `batch_size`. Use
        it for structures of different sizes.
    validation_batch_size : int
        Structures per batch in validation. It does not affect the results.
    validation_interval : int
        Epochs between validations.
    max_epochs : int
        Number of epochs after which the training ends.
    max_time : float, optional, min
        Time after which the training ends, at the end of the current epoch.
    early_stopping : int, optional
        Number of consecutive validations without a lower validation loss after which the training
        ends, even if the schedule of the learning rate is not finished.
    ema_decay : float
        Decay of the exponential moving average of the weights; 0 for no average. Validation and
        the exported models use the average.
    refit_energy_shifts : bool
        Fit the energy shifts of the finished model to the training set again, unless
        ``data.energy_shifts`` specifies them.
    gradient_clip : float, optional
        Largest norm of the gradient.
    precision : {"single", "double"}
        Precision of the network.
    seed : int
        Seed of the initial weights and of the order of the data.
    num_threads : int, optional
        Threads of torch on the CPU; by default one for every 200 atoms of a batch, and at most
        the default number of torch.
    trainer : dict
        Options of ``lightning.Trainer``: accelerator, devices, num_nodes, strategy, …
    """

    data: DataConfig
    model: Mapping[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    distill_from: str | None = None
    freeze: tuple[str, ...] = ()
    output: str = "training"
    loss: LossConfig = field(default_factory=LossConfig)
    equilibration: EquilibrationConfig = field(default_factory=EquilibrationConfig)
    harmonic: HarmonicConfig = field(default_factory=HarmonicConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch_size: int = 4
    batch_atoms: int | None = None
    validation_batch_size: int = 8
    validation_interval: int = 1
    max_epochs: int = 1000
    max_time: float | None = None
    early_stopping: int | None = None
    ema_decay: float = 0.99
    refit_energy_shifts: bool = True
    gradient_clip: float | None = None
    precision: str = "single"
    seed: int = 0
    num_threads: int | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model and self.start_from is None:
            raise InputError(describe("model", "nothing", "an entry"))
        if self.validation_interval > self.max_epochs >= 1:  # there would be no best model
            expected = f"at most max_epochs = {self.max_epochs}"
            raise InputError(describe("validation_interval", self.validation_interval, expected))
        warmup = self.schedule.warmup_epochs
        if warmup > self.max_epochs >= 1:  # as in a trial of a few epochs
            notify(
                f"schedule.warmup_epochs: {warmup:g} epochs are more than max_epochs = "
                f"{self.max_epochs}, so that the learning rate is not reached"
            )
        check_choice("precision", self.precision, ("single", "double"))
        if not 0 <= self.ema_decay < 1:
            raise InputError(describe("ema_decay", self.ema_decay, "a number in [0, 1)"))
        for name in ("max_time", "gradient_clip"):
            if getattr(self, name) is not None:
                above(name, getattr(self, name), 0)
        taken = _RESERVED.intersection(self.trainer)
        if taken:
            raise InputError(
                describe("trainer", sorted(taken), "options that have no entry of their own here")
            )


#: Options of the Lightning trainer that other entries of this configuration determine.
_RESERVED = frozenset(
    {
        "callbacks",
        "check_val_every_n_epoch",
        "default_root_dir",
        "gradient_clip_val",
        "inference_mode",
        "logger",
        "max_epochs",
        "max_time",
        "precision",
        "use_distributed_sampler",
    }
)
_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "loss": LossConfig,
    "equilibration": EquilibrationConfig,
    "harmonic": HarmonicConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "keys": DataKeys,
    "units": DataUnits,
}
#: Entries of ``data`` that may contain mappings.
_FILES: dict[str, type] = dict.fromkeys(("train", "validation", "test"), DataFile)
#: Places of the keys that occur in only one section, for messages about misplaced keys.
_PLACES = places_of(
    {
        "": TrainingConfig,
        "model": ModelConfig,
        "data.keys": DataKeys,
        "data.units": DataUnits,
        **{name: kind for name, kind in _SECTIONS.items() if name not in ("keys", "units")},
    }
)


def load_config(
    path: str | Path, overrides: Mapping[str, Any] | None = None
) -> tuple[TrainingConfig, dict[str, Any]]:
    """Read a training YAML file.

    Parameters
    ----------
    path : path
        Paths of data files in it are relative to its directory.
    overrides : dict, optional
        Values that replace those of the file: nested, or with dotted keys such as
        ``{"optimizer.lr": 0.01}``.

    Returns
    -------
    config : TrainingConfig
    raw : dict
        Entries as read, including the overrides.

    Raises
    ------
    InputError
        If the file is not YAML, a key is unknown (the message suggests the closest valid one), or
        a value has the wrong type.
    """
    raw = read_yaml(path, "config_path")
    if not isinstance(raw, dict):
        raise InputError(describe("config_path", str(path), "a YAML mapping"))
    for key, value in (overrides or {}).items():
        override(raw, key.split("."), value)
    return parse_config(raw), raw


def parse_config(raw: Mapping[str, Any]) -> TrainingConfig:
    """Configuration from the entries of a training file.

    Parameters
    ----------
    raw : mapping
        As read from YAML.

    Raises
    ------
    InputError
        If a key is unknown (the message suggests the closest valid one), or a value has the wrong
        type.
    """
    config = build(TrainingConfig, raw, _SECTIONS | _FILES, places=_PLACES)
    check_ranges(config)
    return config


def resolve(path: str, config_path: str | Path) -> Path:
    """Path of a data file, relative to the configuration file that specifies it."""
    return (Path(config_path).parent / Path(path).expanduser()).resolve()


def model_file(given: str, config_path: str | Path, entry: str) -> Path:
    """Model file of an entry: a path relative to the configuration, or the name of a model."""
    path = resolve(given, config_path)
    return model_path(path if path.exists() else given, entry)
