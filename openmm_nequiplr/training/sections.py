"""Sections of the training configuration: loss, equilibration, optimiser, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from ..checks import check_choice
from ..errors import InputError, describe
from .parsing import check_keys


@dataclass(frozen=True)
class LossConfig:
    """Weights of the mean squared errors, in eV, Å and e.

    The loss is Σ weight × mean squared error of: energy per atom (eV/atom), force components
    (eV/Å), charges (e), components of dipole (e Å), stress (eV/Å³), Born charges (e) and
    polarisability (e Å²/V).

    Parameters
    ----------
    energy_per_atom : float
        Weight of the mean squared error of the energy per atom, (eV/atom)².
    forces : float
        Weight of the mean squared error of the force components, (eV/Å)².
    charges : float
        Weight of the mean squared error of the charges, e².
    dipole : float
        Weight of the mean squared error of the dipole components, (e Å)².
    stress : float
        Weight of the mean squared error of the stress components, (eV/Å³)².
    born_charges : float
        Weight of the mean squared error of the components of Born effective charges, e².
    polarizability : float
        Weight of the mean squared error of the components of the polarisability, (e Å²/V)².
    per_species : list of {"forces", "charges"}
        Quantities for which all elements of a batch have equal weight, regardless of their number
        of atoms. For example, two gold atoms count as much as the hundred atoms of a slab below
        them. Only the training loss is affected.
    final : dict
        Weights at the end of the training, for weights that change. A weight changes exponentially
        from its initial to its final value. The validation loss uses the final weights.
    """

    energy_per_atom: float = 1.0
    forces: float = 1.0
    charges: float = 0.0
    dipole: float = 0.0
    stress: float = 0.0
    born_charges: float = 0.0
    polarizability: float = 0.0
    per_species: tuple[str, ...] = ()
    final: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.per_species:
            check_choice("loss.per_species", name, ("forces", "charges"))
        check_keys(self.final, list(self.weights()), "loss.final.")
        for name, value in self.final.items():
            above(f"loss.final.{name}", value, 0.0)
            above(f"loss.{name}", getattr(self, name), 0.0)
        for name, weight in self.weights().items():
            at_least(f"loss.{name}", weight, 0.0)
        if not any(self.weights().values()):
            raise InputError(describe("loss", "all weights zero", "one weight above zero"))

    def weights(self) -> dict[str, float]:
        """Weight of each quantity, by name."""
        names = (each.name for each in fields(self) if each.type == "float")
        return {name: getattr(self, name) for name in names}

    def at(self, progress: float) -> LossConfig:
        """Weights at a progress of the training between 0 and 1."""
        now = {
            name: getattr(self, name) ** (1.0 - progress) * float(end) ** progress
            for name, end in self.final.items()
        }
        return replace(self, **now, final={})


@dataclass(frozen=True)
class EquilibrationConfig:
    """Initial parameters of the charge equilibration of a new model.

    In the linear response of a charge equilibration, an insulator with hardnesses of a few eV/e²
    screens like a metal. Ions that keep their charges in a field need hundreds or thousands.

    Parameters
    ----------
    hardness : dict, eV/e²
        Initial hardness J of each element. The default is 1 eV/e² above ``model.hardness_min``.
    charge_offset : dict, e
        Initial charge offset Z of each element, with ``model.effective_charges``; 0 by default.
    charges : dict, e
        Charge of each element (0 by default) that ``fit_electronegativity`` uses for structures
        without reference charges. Without both, charges start near zero, where the forces hardly
        depend on them.
    fit_electronegativity : bool
        Set shift and scale of χ of each element to the mean and the standard deviation of the
        values that reproduce the reference charges of the training set.
    charge_epochs : int
        Number of epochs before the training in which only the electronegativities are trained, on
        the reference charges (and on dipoles, if the loss has weights for both). They are much
        cheaper than training epochs.
    charge_lr : float
        Learning rate of these epochs (Adam, cosine schedule).
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
        Optimiser: Adam, or Adam with decoupled weight decay.
    lr : float
        Largest learning rate.
    weight_decay : float
        Weight decay. Not applied to hardnesses, Bessel frequencies and one-dimensional parameters.
    amsgrad : bool
        Use the AMSGrad variant.
    betas : pair of float
        Decay rates of the running means of the gradient and of its square.

    References
    ----------
    Kingma and Ba, arXiv:1412.6980 (Adam); Loshchilov and Hutter, arXiv:1711.05101 (AdamW); Reddi,
    Kale and Kumar, arXiv:1904.09237 (AMSGrad).
    """

    name: str = "adam"
    lr: float = 0.005
    weight_decay: float = 0.0
    amsgrad: bool = False
    betas: tuple[float, ...] = (0.9, 0.999)

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, ("adam", "adamw"))
        above("optimizer.lr", self.lr, 0.0)
        at_least("optimizer.weight_decay", self.weight_decay, 0.0)
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise InputError(describe("optimizer.betas", self.betas, "two numbers in [0, 1)"))


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning-rate schedule.

    Parameters
    ----------
    name : {"constant", "cosine", "exponential", "plateau"}
        Kind of schedule. ``cosine`` decays over ``max_epochs``, or over ``max_time`` if that ends
        first. ``exponential`` decays by the same factor in every epoch. ``plateau`` multiplies
        the learning rate by ``factor`` when the validation loss has not improved for ``patience``
        validations.
    warmup_epochs : float
        Epochs of linear increase from zero at the beginning.
    final_factor : float
        Ratio of the smallest to the largest learning rate; the final value of ``cosine`` and
        ``exponential``.
    patience : int
        Validations without improvement before ``plateau`` lowers the learning rate.
    factor : float
        Factor by which ``plateau`` lowers the learning rate.
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    final_factor: float = 0.001
    patience: int = 25
    factor: float = 0.5

    def __post_init__(self) -> None:
        check_choice("schedule.name", self.name, ("constant", "cosine", "exponential", "plateau"))
        at_least("schedule.patience", self.patience, 1)
        for name in ("final_factor", "factor"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(describe(f"schedule.{name}", value, "a number in (0, 1]"))


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a value below a minimum."""
    if not value >= least:
        raise InputError(describe(name, value, f"at least {least:g}"))


def above(name: str, value: float, least: float) -> None:
    """Refuse a value that is not above a lower limit."""
    if not value > least:
        raise InputError(describe(name, value, f"above {least:g}"))
