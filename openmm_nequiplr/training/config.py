"""The training configuration: a YAML file read into frozen, validated dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..data.keys import DataKeys
from ..data.units import DataUnits
from ..errors import InputError, describe
from ..yaml_files import read_yaml
from .harmonic import HarmonicConfig
from .limits import check_ranges
from .parsing import build, check_keys, override


@dataclass(frozen=True)
class DataConfig:
    """Where the structures come from.

    Parameters
    ----------
    train : str or list of str
        Data files; paths are relative to the configuration file.
    validation : str or list of str, optional
        Files for validation. Without them, structures are taken out of `train` at random.
    test : str or list of str, optional
        Files on which the finished model is judged.
    num_train, num_validation, num_test : int or float
        Sizes of the random split, as numbers or as fractions. Unused parts are left out.
    split_seed : int
        Seed of the random split.
    format : {"extxyz", "runner"}, optional
        Recognised when not given.
    keys : dict
        Key names, see `DataKeys`.
    units : dict
        ``length`` and ``energy`` of the files, see `DataUnits`.
    energy_shifts : dict, optional
        Energy of an atom of each element, eV; least squares over the training set otherwise.
    per_species_scales : bool
        Scale energies by the rms force of each element rather than of all atoms.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    num_train: int | float | None = None
    num_validation: int | float = 0.1
    num_test: int | float = 0
    split_seed: int = 0
    format: str | None = None
    keys: DataKeys = field(default_factory=DataKeys)
    units: DataUnits = field(default_factory=DataUnits)
    energy_shifts: Mapping[str, float] | None = None
    per_species_scales: bool = False


@dataclass(frozen=True)
class LossConfig:
    """Weights of the mean squared errors, in eV, Å and e.

    The loss is Σ weight × mean squared error of: energy per atom (eV/atom), force components
    (eV/Å), charges (e), dipole components (e Å), stress components (eV/Å³).

    Parameters
    ----------
    energy_per_atom, forces, charges, dipole, stress : float
        The weights.
    per_species : list of {"forces", "charges"}
        Quantities in which every element of a batch counts alike, however few its atoms are: two
        gold atoms on a slab as much as a hundred of the slab. In training only.
    final : dict
        Weights at the end of the training, of those of the above that change; in between they
        change by the same factor in equal parts of the training. Validation has the final ones.
    """

    energy_per_atom: float = 1.0
    forces: float = 1.0
    charges: float = 0.0
    dipole: float = 0.0
    stress: float = 0.0
    per_species: tuple[str, ...] = ()
    final: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.per_species:
            _one_of("loss.per_species", name, ("forces", "charges"))
        check_keys(self.final, list(self.weights()), "loss.final.")
        for name, value in self.final.items():
            _above(f"loss.final.{name}", value, 0.0)
            _above(f"loss.{name}", getattr(self, name), 0.0)
        for name, weight in self.weights().items():
            _at_least(f"loss.{name}", weight, 0.0)
        if not any(self.weights().values()):
            raise InputError(describe("loss", "all weights zero", "one weight above zero"))

    def weights(self) -> dict[str, float]:
        """Name and weight of every quantity."""
        names = (each.name for each in fields(self) if each.type == "float")
        return {name: getattr(self, name) for name in names}

    def at(self, progress: float) -> LossConfig:
        """The weights at a share of the training between 0 and 1."""
        now = {
            name: getattr(self, name) ** (1.0 - progress) * float(end) ** progress
            for name, end in self.final.items()
        }
        return replace(self, **now, final={})


@dataclass(frozen=True)
class EquilibrationConfig:
    """Where the charge equilibration of a new model starts.

    In the linear response of a charge equilibration an insulator with hardnesses of a few eV/e²
    screens like a metal. Ions that keep their charges in a field want hundreds or thousands.

    Parameters
    ----------
    hardness : dict, eV/e²
        J of each element; those that are not named start at 1 above the least.
    charge_offset : dict, e
        Z of each element, with ``model.effective_charges``; 0 for those that are not named.
    charges : dict, e
        Charge of each element (0 for those that are not named) that stands in for reference
        charges where a structure has none, in ``fit_electronegativity``. Without either, charges
        start near zero, where forces hardly depend on them.
    fit_electronegativity : bool
        Shift and scale χ of each element to the mean and spread of the values that give the
        reference charges of the training set.
    charge_epochs : int
        Epochs in which the electronegativities alone learn the reference charges (and dipoles, if
        the loss has weights for both), before the training proper; they cost a fraction of its
        epochs.
    charge_lr : float
        Learning rate (Adam, cosine) of those epochs.
    """

    hardness: Mapping[str, float] | None = None
    charge_offset: Mapping[str, float] | None = None
    charges: Mapping[str, float] | None = None
    fit_electronegativity: bool = False
    charge_epochs: int = 0
    charge_lr: float = 0.01

    def __post_init__(self) -> None:
        for name, value in (self.hardness or {}).items():
            _above(f"equilibration.hardness.{name}", value, 0.0)
        if self.charges and not self.fit_electronegativity:
            expected = "nothing without equilibration.fit_electronegativity"
            raise InputError(describe("equilibration.charges", dict(self.charges), expected))
        _above("equilibration.charge_lr", self.charge_lr, 0.0)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam or AdamW.

    Parameters
    ----------
    name : {"adam", "adamw"}
    lr : float
        Largest learning rate.
    weight_decay : float
        Not applied to hardnesses, Bessel frequencies and one-dimensional parameters.
    amsgrad : bool
    betas : pair of float
    """

    name: str = "adam"
    lr: float = 0.005
    weight_decay: float = 0.0
    amsgrad: bool = False
    betas: tuple[float, ...] = (0.9, 0.999)

    def __post_init__(self) -> None:
        _one_of("optimizer.name", self.name, ("adam", "adamw"))
        _above("optimizer.lr", self.lr, 0.0)
        _at_least("optimizer.weight_decay", self.weight_decay, 0.0)
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise InputError(describe("optimizer.betas", self.betas, "two numbers in [0, 1)"))


@dataclass(frozen=True)
class ScheduleConfig:
    """Course of the learning rate.

    Parameters
    ----------
    name : {"constant", "cosine", "exponential", "plateau"}
        ``cosine`` runs down over `max_epochs`, or over `max_time` where that ends first;
        ``exponential`` runs down by the same factor in every epoch; ``plateau`` multiplies by
        `factor` when the validation loss has not improved for `patience` validations.
    warmup_epochs : float
        Linear increase from zero at the beginning.
    final_factor : float
        Smallest learning rate over the largest (``cosine`` and ``exponential`` end there).
    patience : int
    factor : float
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    final_factor: float = 0.001
    patience: int = 25
    factor: float = 0.5

    def __post_init__(self) -> None:
        _one_of("schedule.name", self.name, ("constant", "cosine", "exponential", "plateau"))
        _at_least("schedule.patience", self.patience, 1)
        for name in ("final_factor", "factor"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(describe(f"schedule.{name}", value, "a number in (0, 1]"))


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that `train` needs.

    Parameters
    ----------
    data : DataConfig
    model : dict
        Fields of `ModelConfig`. ``type_names`` may be left out and ``avg_num_neighbors``,
        ``charge_min``, ``charge_max`` and ``shortest_distances`` may be ``auto``: they are then
        taken from the data. What is not given is as in `ModelConfig`, but for the choices that
        keep a new model from extrapolating without bounds (`SAFE_DEFAULTS`):
        ``electrostatic_energy: coulomb``, ``electronegativity_bound: 6``, ``zbl: true`` and
        ``shortest_distances: auto``.
    start_from : str, optional
        Model file, relative to the configuration, or name of a shipped model: training starts from
        its weights instead of random ones, and `model` may stay empty. Energy shifts are fitted
        anew, so that the data may be of another method than those it has seen. Another
        configuration (``.yaml``) stands for the model it makes, and is trained first if need be.
    output : str
        Directory for everything that is written, relative to the working directory.
    loss, equilibration, harmonic, optimizer, schedule
        See `LossConfig`, `EquilibrationConfig`, `HarmonicConfig`, `OptimizerConfig`,
        `ScheduleConfig`.
    batch_size : int
        Structures per optimiser step and process.
    validation_batch_size : int
    validation_interval : int
        Validate every so many epochs.
    max_epochs : int
    max_time : float, optional
        Minutes after which training ends with the epoch.
    ema_decay : float
        Decay of the exponential moving average of the weights, 0 for none. Validation and the
        exported models use the average.
    refit_energy_shifts : bool
        Fit the energy shifts of the finished model anew over the training set (unless they are
        given in `data`).
    gradient_clip : float, optional
        Largest norm of the gradient.
    precision : {"single", "double"}
        Of the network.
    seed : int
        Initial weights and order of the data.
    num_threads : int, optional
        Threads of torch on the CPU.
    trainer : dict
        Passed on to ``lightning.Trainer``: accelerator, devices, num_nodes, strategy, …
    """

    data: DataConfig
    model: Mapping[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    output: str = "training"
    loss: LossConfig = field(default_factory=LossConfig)
    equilibration: EquilibrationConfig = field(default_factory=EquilibrationConfig)
    harmonic: HarmonicConfig = field(default_factory=HarmonicConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch_size: int = 4
    validation_batch_size: int = 8
    validation_interval: int = 1
    max_epochs: int = 1000
    max_time: float | None = None
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
        _one_of("precision", self.precision, ("single", "double"))
        if not 0 <= self.ema_decay < 1:
            raise InputError(describe("ema_decay", self.ema_decay, "a number in [0, 1)"))
        for name in ("max_time", "gradient_clip"):
            if getattr(self, name) is not None:
                _above(name, getattr(self, name), 0)
        taken = _RESERVED.intersection(self.trainer)
        if taken:
            raise InputError(
                describe("trainer", sorted(taken), "options that have no entry of their own here")
            )


#: Options of the Lightning trainer that this configuration sets itself.
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


def load_config(
    path: str | Path, overrides: Mapping[str, Any] | None = None
) -> tuple[TrainingConfig, dict[str, Any]]:
    """Read a training YAML file.

    Parameters
    ----------
    path : path
        Data files that it names are relative to its directory.
    overrides : dict, optional
        Values that replace those of the file; nested, or with dotted keys such as
        ``{"optimizer.lr": 0.01}``.

    Returns
    -------
    config : TrainingConfig
    raw : dict
        The entries as read, overrides included, for the record.

    Raises
    ------
    InputError
        If the file is not YAML, a key is unknown (the closest valid one is named), or a value is
        of the wrong kind.
    """
    raw = read_yaml(path, "config_path")
    if not isinstance(raw, dict):
        raise InputError(describe("config_path", str(path), "a YAML mapping"))
    for key, value in (overrides or {}).items():
        override(raw, key.split("."), value)
    config = build(TrainingConfig, raw, _SECTIONS)
    check_ranges(config)
    return config, raw


def resolve(path: str, config_path: str | Path) -> Path:
    """A data path of the configuration, relative to the file that names it."""
    return (Path(config_path).parent / Path(path).expanduser()).resolve()


def file_or_name(given: str, config_path: str | Path) -> str | Path:
    """The file of that name, relative to the configuration; the name itself if there is none."""
    path = resolve(given, config_path)
    return path if path.exists() else given


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(describe(name, value, "one of " + ", ".join(valid)))


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InputError(describe(name, value, f"at least {least:g}"))


def _above(name: str, value: float, least: float) -> None:
    if not value > least:
        raise InputError(describe(name, value, f"above {least:g}"))
