"""Options of a molecular dynamics run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..checks import check_choice, check_timestep, is_number, is_whole
from ..errors import InputError, describe, notify
from .committee import ON_SPREAD
from .limits import ON_UNSTABLE
from .settings import ForceOptions

ENSEMBLES = ("nve", "nvt", "npt")
BAROSTATS = ("isotropic", "anisotropic", "flexible")
# Smallest and largest values of integers; OpenMM's seeds and intervals are 32-bit integers.
_WHOLE = (
    ("steps", 0, 10**12),
    ("inner_steps", 1, 1000),
    ("barostat_interval", 1, 2**31 - 1),
    ("report_interval", 1, 2**31 - 1),
    ("max_iterations", 1, 10**9),
    ("checkpoint_interval", 1, 10**12),
    ("threads", 1, max(64, os.cpu_count() or 1)),
    ("seed", 0, 2**31 - 1),
)
#: Default number of steps between frames, and of inner steps.
DEFAULT_REPORT_INTERVAL, DEFAULT_INNER_STEPS = 10, 4


@dataclass(frozen=True, kw_only=True)
class MDOptions(ForceOptions):
    """Options of a molecular dynamics run.

    Parameters
    ----------
    model : str or path
        Model file, or name of a shipped or downloaded model.
    structure : str or path, optional
        Start structure; by default the one that comes with a shipped model.
    frame : int, optional
        Index of the frame in the structure file; by default the last one.
    ensemble : {"nve", "nvt", "npt"}
        Verlet dynamics; Langevin dynamics; Langevin dynamics with a Monte Carlo barostat.
    steps : int
        Steps of this run; a restart adds them to the earlier ones.
    timestep : float, fs
        At most 20.
    temperature : float, K
        Of the initial velocities, the thermostat and the barostat.
    friction : float, 1/ps
        Of the Langevin thermostat.
    pressure : float, bar
    barostat : {"isotropic", "anisotropic", "flexible"}
        Degrees of freedom of the box in ``npt``: volume, the three edges, or the full shape.
    barostat_axes : str
        Axes that the anisotropic barostat may scale, such as ``"xy"`` for a slab.
    barostat_interval : int
        Steps between Monte Carlo moves.
    inner : str or path, optional
        Inner model without charges, for multiple time steps. ``timestep`` is then the outer time
        step, between evaluations of the full model. See :func:`.multistep.add_inner_potential`.
    inner_steps : int, optional
        Inner steps, with the forces of the inner model, per time step; by default 4.
    hydrogen_mass : float, optional, Da
        Mass of hydrogen atoms, subtracted from the atoms bonded to them, see
        :func:`.create_system`. Bonds are those of the structure, or are found by distance.
    total_charge : float, optional, e
        By default that of the structure.
    minimize : bool
        Minimise the energy before the first step.
    seed : int, optional
        Random seed of velocities, thermostat and barostat.
    platform : str, optional
        OpenMM platform; by default CUDA if OpenMM and torch have it, otherwise CPU.
    electric_field, slab, charge_groups, group_charges, electrodes, electrode_voltage, \
    long_range, ewald_tolerance, device, precision, solver, charge_tolerance, max_iterations, \
    backend, coulomb_platform
        See :class:`.settings.ForceOptions`.
    output : str or path
        Output directory.
    report_interval : int, optional
        Steps between frames; by default 10, or the interval of the continued run.
    checkpoint_interval : int, optional
        Steps between checkpoints; by default ten frames.
    restart : bool
        Continue the run in ``output``.
    committee : sequence of str or path
        Other members of a committee, whose spread is reported: models or directories of committees.
    spread_threshold : float, optional, eV/Å
        Largest committee standard deviation of a force allowed.
    on_spread : {"save", "stop"}
        Action when it is exceeded: save the frame, or save it and end the run.
    on_unstable : {"stop", "warn"}
        Action when the simulation becomes unstable, see :class:`.stability.StabilityReporter`: stop
        and keep the last stable checkpoint, or warn.
    charge_of : str, optional
        Element whose charges the summary plot shows; by default the one with the fewest atoms.
    threads : int, optional
        Threads of torch and of OpenMM's CPU platform; by default one for fewer than 500 atoms,
        otherwise all cores.
    quiet : bool
        Print nothing.

    Raises
    ------
    InputError
        If a value is invalid.
    """

    model: str | Path
    structure: str | Path | None = None
    frame: int | None = None
    ensemble: str = "nvt"
    steps: int = 1000
    timestep: float = 1.0
    temperature: float = 300.0
    friction: float = 1.0
    pressure: float = 1.0
    barostat: str = "isotropic"
    barostat_axes: str = "xyz"
    barostat_interval: int = 25
    inner: str | Path | None = None
    inner_steps: int | None = None
    hydrogen_mass: float | None = None
    total_charge: float | None = None
    minimize: bool = False
    seed: int | None = None
    platform: str | None = None
    output: str | Path = "md"
    report_interval: int | None = None
    checkpoint_interval: int | None = None
    restart: bool = False
    committee: tuple[str, ...] = ()
    spread_threshold: float | None = None
    on_spread: str = "save"
    on_unstable: str = "stop"
    charge_of: str | None = None
    threads: int | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.committee, str | Path):
            raise InputError(describe("committee", self.committee, "a list of models"))
        object.__setattr__(self, "committee", tuple(map(str, self.committee)))
        choices_of = (
            ("ensemble", ENSEMBLES),
            ("barostat", BAROSTATS),
            ("on_spread", ON_SPREAD),
            ("on_unstable", ON_UNSTABLE),
        )
        for name, choices in choices_of:
            check_choice(name, getattr(self, name), choices)
        for name, least, most in _WHOLE:
            if name == "steps" or getattr(self, name) is not None:
                self._check_number(name, whole=True, least=least, most=most)
        check_timestep("timestep", self.timestep)
        for name, highest in (("temperature", 1e5), ("friction", 1e6)):
            self._check_number(name, above=0.0, most=highest)
        self._check_number("pressure", most=1e8)
        if self.hydrogen_mass is not None:
            self._check_number("hydrogen_mass", above=0.0)
        if self.total_charge is not None:
            self._check_number("total_charge")
        if self.frame is not None:
            self._check_number("frame", whole=True)
        if self.spread_threshold is not None:
            self._check_number("spread_threshold", above=0.0)
            if not self.committee:
                expected = "nothing without a committee"
                raise InputError(describe("spread_threshold", self.spread_threshold, expected))
        if self.inner_steps is not None and self.inner is None:
            raise InputError(describe("inner_steps", self.inner_steps, "nothing without inner"))
        axes = str(self.barostat_axes)
        if not axes or set(axes) - set("xyz") or len(set(axes)) < len(axes):
            expected = "some of 'xyz', each once"
            raise InputError(describe("barostat_axes", self.barostat_axes, expected))

    def say_idle(self) -> None:
        """Report options that have no effect on this run, and a pressure without equilibrium."""
        bath = () if self.ensemble == "npt" else ("pressure", "barostat", "barostat_interval")
        axes = self.ensemble == "npt" and self.barostat == "anisotropic"
        idle = bath if axes else (*bath, "barostat_axes")
        if self.ensemble == "nve":
            idle = (*idle, "friction")
        for name in idle:
            if getattr(self, name) != getattr(type(self), name):
                ensemble = f"{self.ensemble} with barostat {self.barostat}"
                notify(f"{name}: {getattr(self, name)} has no effect in {ensemble}")
        if self.ensemble == "npt" and self.pressure < 0.0:
            notify(
                f"pressure: {self.pressure:g} bar is tension, under which a liquid has no volume"
            )
        events = [("report_interval", "frame")]
        events += [("barostat_interval", "change of the box")] if self.ensemble == "npt" else []
        for name, event in events:
            interval = getattr(self, name)
            if not self.restart and interval is not None and 0 < self.steps < interval:
                notify(
                    f"{name}: {interval} is more than the {self.steps} steps: there is no {event}"
                )

    def _check_number(
        self,
        name: str,
        whole: bool = False,
        least: int | None = None,
        above: float | None = None,
        most: float = math.inf,
    ) -> None:
        value = getattr(self, name)
        good = is_number(value) and (not whole or is_whole(value))
        if good and least is not None:
            good = value >= least
        if good and above is not None:
            good = value > above
        if not good:
            expected = "a whole number" if whole else "a finite number"
            expected += f" of at least {least}" if least is not None else ""
            expected += f" above {above:g}" if above is not None else ""
            raise InputError(describe(name, value, expected))
        if abs(value) > most:
            raise InputError(describe(name, value, f"at most {most:.10g}"))
