"""A simulation with its files, from the first step to the last."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from ..console import say
from ..errors import UncertaintyError
from ..model import NequIPLRPotential
from ..units import ANGSTROM_PER_NM
from .committee import CommitteeReporter
from .lookup import get_computation
from .options import DEFAULT_REPORT_INTERVAL, MDOptions
from .reporters import ChargeReporter
from .runfiles import LogReporter, RunFiles, read_settings, save_atomically
from .summary import draw_summary, rarest_element
from .topology import SimulationStructure, element_masses, element_symbols, to_atoms

_SECONDS_PER_DAY = 86400.0
_STEPS_AT_ONCE = 10  # between two looks at signals and the clock

# Settings whose change in a restart is worth a note.
_PHYSICAL = (
    "model", "ensemble", "timestep", "temperature", "friction", "pressure", "barostat",
    "barostat_axes", "total_charge", "long_range", "nonbonded_cutoff", "ewald_tolerance",
    "precision", "solver", "charge_tolerance",
)  # fmt: skip


def settings_of(options: MDOptions) -> dict[str, object]:
    """The options as plain values for the settings file."""
    values = dataclasses.asdict(options)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


@dataclass(frozen=True)
class MDResult:
    """What came out of a run.

    Parameters
    ----------
    files : RunFiles
        Where the results are.
    steps : int
        Steps of the whole run, earlier parts included.
    time : float, ps
    ns_per_day : float
    potential_energy : float, eV
    temperature : float, K
        At the last report; NaN without one.
    """

    files: RunFiles
    steps: int
    time: float
    ns_per_day: float
    potential_energy: float
    temperature: float


class Run:
    """A simulation with its files, from the first step to the last."""

    def __init__(
        self,
        options: MDOptions,
        files: RunFiles,
        simulation: app.Simulation,
        others: Sequence[NequIPLRPotential] = (),
    ) -> None:
        self.options, self.files, self.simulation = options, files, simulation
        self.others = others
        system = simulation.system
        self.masses = np.array(
            [system.getParticleMass(k)._value for k in range(system.getNumParticles())]
        )
        self.symbols = element_symbols(simulation.topology)
        self._started = time.perf_counter()
        self._first_step = 0
        self._printed = 0.0
        self.committee: CommitteeReporter | None = None

    def say(self, text: str) -> None:
        """Print a line unless the run is quiet."""
        if not self.options.quiet:
            say(text)

    # ------------------------------------------------------------------ start

    def begin(self, structure: SimulationStructure, state: openmm.State | None) -> None:
        """Set positions and velocities, or the state of a checkpoint, and open the files."""
        append = False
        if state is None:
            self._start(structure)
        else:
            append = self._continue(state)
        self._first_step = self.simulation.currentStep
        # the first evaluation loads the model; errors show up before files are written
        self.simulation.context.getState(energy=True)
        if state is None:
            self._write_start()
        self._open_reporters(append)

    def _start(self, structure: SimulationStructure) -> None:
        context, options = self.simulation.context, self.options
        if structure.box is not None:
            context.setPeriodicBoxVectors(*structure.box)
        context.setPositions(structure.positions)
        if options.minimize:
            before = self._potential()
            self.simulation.minimizeEnergy(maxIterations=500)
            self.say(f"minimised: {before:.4f} eV -> {self._potential():.4f} eV")
        context.setVelocitiesToTemperature(options.temperature, options.seed)

    def _continue(self, state: openmm.State) -> bool:
        """Load the checkpoint, cut the files back to it; whether there are frames before it."""
        self.simulation.context.setState(state)
        step = self.simulation.currentStep
        earlier = read_settings(self.files.settings)
        now = settings_of(self.options)
        for name in _PHYSICAL:
            if name in earlier and now[name] != earlier[name]:
                self.say(f"note: {name} is {now[name]} from here on, it was {earlier[name]}")
        self.say(f"continuing at step {step}")
        return self.files.cut_back(step) > 0

    def _write_start(self) -> None:
        state = self.simulation.context.getState(positions=True)
        with open(self.files.topology, "w", encoding="utf-8") as handle:
            app.PDBFile.writeFile(self.simulation.topology, state.getPositions(), handle, True)
        settings = settings_of(self.options)
        if not np.allclose(self.masses, element_masses(self.simulation.topology), rtol=1e-6):
            settings["masses"] = self.masses.tolist()  # the topology cannot hold them
        text = json.dumps(settings, indent=2)
        save_atomically(self.files.settings, text + "\n")
        self.save_checkpoint()

    def _open_reporters(self, append: bool) -> None:
        interval = self.options.report_interval or DEFAULT_REPORT_INTERVAL
        moving, count = int(np.count_nonzero(self.masses)), len(self.symbols)
        freedom = 3 * moving - (3 if moving == count > 1 else 0)
        self.log = LogReporter(self.files.log, interval, freedom, self.speed, append)
        self.charges = ChargeReporter(self.files.charges, interval, append=append)
        trajectory = app.DCDReporter(
            str(self.files.trajectory), interval, append=append, enforcePeriodicBox=False
        )
        self.simulation.reporters.extend([trajectory, self.log, self.charges])
        if self.others:  # the last reporter: it may end the run
            self.committee = CommitteeReporter(
                self.files.spread,
                interval,
                self.others,
                self.options.spread_threshold,
                self.options.on_spread,
                self.files.uncertain,
                append,
            )
            self.simulation.reporters.append(self.committee)

    # -------------------------------------------------------------------- run

    def go(self) -> MDResult:
        """Do the steps, then write what belongs at the end."""
        last = self._first_step + self.options.steps
        self._started = time.perf_counter()
        uncertain: UncertaintyError | None = None
        with _stop_signals() as stopped:
            try:
                while self.simulation.currentStep < last and not stopped():
                    self._advance(last)
            except UncertaintyError as error:
                uncertain = error
            finally:
                self._close()
        self.save_checkpoint()
        result = self._finish()
        if self.committee is not None:
            self.say(
                f"committee: forces spread by {self.committee.largest:.3g} eV/Å at most, "
                f"{self.committee.saved} frames saved as uncertain"
            )
        if stopped():
            self.say(f"stopped at step {result.steps}; --restart continues")
            raise KeyboardInterrupt
        if uncertain is not None:
            raise UncertaintyError(f"{uncertain}; --restart continues from there") from uncertain
        self.say(f"done: {result.ns_per_day:.3g} ns/day, results in {self.files.directory}")
        return result

    def _advance(self, last: int) -> None:
        every = self.options.checkpoint_interval or 10 * DEFAULT_REPORT_INTERVAL
        step = self.simulation.currentStep
        self.simulation.step(min(_STEPS_AT_ONCE, last - step, every - step % every))
        step = self.simulation.currentStep
        if step % every == 0:
            self.save_checkpoint()
        now = time.perf_counter()
        if now - self._printed >= (1.0 if sys.stdout.isatty() else 10.0) or step == last:
            self._printed = now
            self._progress(step, last)

    def _progress(self, step: int, last: int) -> None:
        speed = self.speed(step)
        left = (last - step) * self.options.timestep * 1e-6 / speed * _SECONDS_PER_DAY
        temperature = self.log.last.get("temperature_K")
        heat = "" if temperature is None else f"T {temperature:.0f} K  "
        minutes, seconds = divmod(int(left), 60)
        text = (
            f"step {step}/{last}  {step * self.options.timestep / 1000:.3f} ps  "
            f"{heat}{speed:.3g} ns/day  {minutes}:{seconds:02d} left"
        )
        if self.options.quiet:
            return
        if sys.stdout.isatty():
            say("\r" + text.ljust(79), end="\n" if step == last else "")
        else:
            say(text)

    def speed(self, step: int) -> float:
        """Speed of this run so far, ns/day."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        nanoseconds = max(step - self._first_step, 0) * self.options.timestep * 1e-6
        return nanoseconds / elapsed * _SECONDS_PER_DAY or float("nan")

    def save_checkpoint(self) -> None:
        """Write the state to continue from."""
        state = self.simulation.context.getState(positions=True, velocities=True)
        save_atomically(self.files.checkpoint, openmm.XmlSerializer.serialize(state))

    def _close(self) -> None:
        self.log.close()
        self.charges.close()
        if self.committee is not None:
            self.committee.close()
        self.simulation.reporters.clear()

    # -------------------------------------------------------------------- end

    def _potential(self) -> float:
        computation = get_computation(self.simulation.system)
        state = self.simulation.context.getState(positions=True)
        return computation.evaluate(*computation.geometry(state)).energy

    def _finish(self) -> MDResult:
        speed = self.speed(self.simulation.currentStep)
        computation = get_computation(self.simulation.system)
        state = self.simulation.context.getState(positions=True)
        positions, cell = computation.geometry(state)
        evaluation = computation.evaluate(positions, cell)
        atoms = to_atoms(
            self.simulation.topology,
            positions / ANGSTROM_PER_NM,
            None if cell is None else cell / ANGSTROM_PER_NM,
            masses=self.masses,
        )
        atoms.set_initial_charges(evaluation.charges)
        atoms.info["total_charge"] = self.options.total_charge
        atoms.write(str(self.files.final), format="extxyz")
        element = self.options.charge_of or rarest_element(self.symbols)
        title = f"{Path(self.options.model).stem}, {self.options.ensemble.upper()}"
        draw_summary(
            self.files.log, self.files.charges, self.symbols, element, self.files.summary, title
        )
        return MDResult(
            files=self.files,
            steps=self.simulation.currentStep,
            time=state.getTime().value_in_unit(unit.picosecond),
            ns_per_day=speed,
            potential_energy=evaluation.energy,
            temperature=self.log.last.get("temperature_K", float("nan")),
        )


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one acts as always."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, frame: object) -> None:
        received.append(number)
        restore()

    for number in numbers:
        signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    finally:
        restore()
