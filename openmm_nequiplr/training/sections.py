"""Sections of the training configuration: loss, equilibration, optimiser, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from ..errors import InputError, describe
from .parsing import check_keys


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
            one_of("loss.per_species", name, ("forces", "charges"))
        check_keys(self.final, list(self.weights()), "loss.final.")
        for name, value in self.final.items():
            above(f"loss.final.{name}", value, 0.0)
            above(f"loss.{name}", getattr(self, name), 0.0)
        for name, weight in self.weights().items():
            at_least(f"loss.{name}", weight, 0.0)
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
    """Initial charge equilibration of a new model.

    In the linear response of a charge equilibration an insulator with hardnesses of a few eV/e²
    screens like a metal. Ions that keep their charges in a field need hundreds or thousands.

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
            above(f"equilibration.hardness.{name}", value, 0.0)
        if self.charges and not self.fit_electronegativity:
            expected = "nothing without equilibration.fit_electronegativity"
            raise InputError(describe("equilibration.charges", dict(self.charges), expected))
        above("equilibration.charge_lr", self.charge_lr, 0.0)


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
        one_of("optimizer.name", self.name, ("adam", "adamw"))
        above("optimizer.lr", self.lr, 0.0)
        at_least("optimizer.weight_decay", self.weight_decay, 0.0)
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise InputError(describe("optimizer.betas", self.betas, "two numbers in [0, 1)"))


@dataclass(frozen=True)
class ScheduleConfig:
    """Schedule of the learning rate.

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
        one_of("schedule.name", self.name, ("constant", "cosine", "exponential", "plateau"))
        at_least("schedule.patience", self.patience, 1)
        for name in ("final_factor", "factor"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(describe(f"schedule.{name}", value, "a number in (0, 1]"))


def one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Refuse a value that is not one of a few."""
    if value not in valid:
        raise InputError(describe(name, value, "one of " + ", ".join(valid)))


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a value below the least."""
    if not value >= least:
        raise InputError(describe(name, value, f"at least {least:g}"))


def above(name: str, value: float, least: float) -> None:
    """Refuse a value that is not above the least."""
    if not value > least:
        raise InputError(describe(name, value, f"above {least:g}"))
