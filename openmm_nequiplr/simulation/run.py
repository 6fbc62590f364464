"""A molecular dynamics run: a simulation with its output files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app, unit

from ..console import say
from ..errors import (
    InputError,
    InstabilityError,
    Interrupted,
    NequIPLRError,
    UncertaintyError,
    describe,
)
from ..model import NequIPLRPotential
from ..units import ANGSTROM_PER_NM
from ..writing import replace_file
from .checkpoint import Checkpoint, RandomState
from .committee import CommitteeReporter
from .energies import EnergyReporter
from .failures import cause_of, described
from .lookup import get_computation
from .marks import FileMark
from .options import DEFAULT_REPORT_INTERVAL, MDOptions
from .progress import Progress
from .relaxation import relax
from .reporters import ChargeReporter
from .restart import continued_settings, settings_of
from .runfiles import LogReporter, MDResult, RunFiles, read_settings
from .signals import StopRequest
from .stability import StabilityReporter, degrees_of_freedom, particle_masses
from .summary import draw_summary, rarest_element
from .topology import SimulationStructure, element_masses, element_symbols, to_atoms

if TYPE_CHECKING:
    from ase import Atoms

_STEPS_AT_ONCE = 10  # between checks of signals and clock


class Run:
    """A molecular dynamics run: a simulation with its output files.

    Parameters
    ----------
    options : MDOptions
        Without missing values.
    files : RunFiles
    simulation : openmm.app.Simulation
    stop : StopRequest
    others : sequence of NequIPLRPotential
        Other members of a committee.
    """

    def __init__(
        self,
        options: MDOptions,
        files: RunFiles,
        simulation: app.Simulation,
        stop: StopRequest,
        others: Sequence[NequIPLRPotential] = (),
    ) -> None:
        self.options, self.files, self.simulation = options, files, simulation
        self.stop, self.others = stop, others
        self.masses = particle_masses(simulation.system)
        self.symbols = element_symbols(simulation.topology)
        self.computation = get_computation(simulation.system)
        self.computation.on_unstable = "stop" if options.on_unstable == "stop" else "ignore"
        self.interval = options.report_interval or DEFAULT_REPORT_INTERVAL
        self.guard = StabilityReporter(
            self.interval, options.temperature, options.on_unstable, _warn
        )
        self.progress = Progress(options.timestep, options.quiet)
        self._first_step = self._saved_step = 0
        self._marks: dict[str, FileMark] = {}
        self.energies: EnergyReporter | None = None
        self.committee: CommitteeReporter | None = None

    def say(self, text: str) -> None:
        """Print a line, unless the run is quiet."""
        if not self.options.quiet:
            say(text)

    # ------------------------------------------------------------------ start

    def begin(self, structure: SimulationStructure, checkpoint: Checkpoint | None) -> None:
        """Set positions and velocities, or load a checkpoint, and open the output files."""
        try:
            if checkpoint is None:
                self._start(structure)
            else:
                self._continue(checkpoint)
            self._first_step = self.simulation.currentStep
            # the first evaluation loads the model, so errors occur before files are written
            self.guard.check(self.simulation)
        except openmm.OpenMMException as error:
            raise self._cause(error) from error
        if checkpoint is not None and checkpoint.random is not None:
            # once more, as a CustomIntegrator draws random numbers for every energy
            checkpoint.random.restore(self.simulation.context, checkpoint.state)
        if checkpoint is None:
            self._write_start()
        self._open_reporters()

    def _start(self, structure: SimulationStructure) -> None:
        context, options = self.simulation.context, self.options
        if structure.box is not None:
            context.setPeriodicBoxVectors(*structure.box)
        context.setPositions(structure.positions)
        if options.minimize:
            trouble = relax(self.simulation, self.computation, self.stop, self.say)
            if trouble is not None and options.on_unstable == "stop":
                raise InstabilityError(trouble)
            if trouble is not None:
                _warn(trouble)
        context.setVelocitiesToTemperature(options.temperature, options.seed)

    def _continue(self, checkpoint: Checkpoint) -> None:
        """Load the checkpoint, and truncate the files to it."""
        context, state = self.simulation.context, checkpoint.state
        context.setState(state)
        step = self._saved_step = self.simulation.currentStep
        self.say(f"continuing at step {step}")
        if self.options.ensemble != "nve":
            reason: str | None = "the checkpoint has none"
            if checkpoint.random is not None:
                reason = checkpoint.random.restore(context, state)
            if reason is not None:
                self.say(f"note: random numbers begin anew: {reason}")
        if self.options.ensemble == "npt":
            self.say("note: OpenMM saves no state of a barostat: moves find their size anew")
        self._marks = checkpoint.marks
        self.files.cut_back(checkpoint.marks)
        earlier = read_settings(self.files.settings)
        settings = continued_settings(self.options, earlier)
        if settings != earlier:
            self._write_settings(settings)

    def _write_start(self) -> None:
        state = self.simulation.context.getState(positions=True)
        with open(self.files.topology, "w", encoding="utf-8") as handle:
            try:
                app.PDBFile.writeFile(self.simulation.topology, state.getPositions(), handle, True)
            except ValueError as error:
                expected = "none that the eight columns of topology.pdb cannot hold"
                raise InputError(describe("positions", str(error), expected)) from None
        settings = settings_of(self.options)
        if not np.allclose(self.masses, element_masses(self.simulation.topology), rtol=1e-6):
            settings["masses"] = self.masses.tolist()  # the topology cannot store them
        self._write_settings(settings)

    def _write_settings(self, settings: dict[str, Any]) -> None:
        """Write the settings, and the checkpoint that belongs to them."""
        replace_file(self.files.settings, json.dumps(settings, indent=2) + "\n")
        self._marks.pop(self.files.settings.name, None)
        self.save_checkpoint()

    def _open_reporters(self) -> None:
        """Open the files; those that the checkpoint contains marks of are continued."""
        files, interval = self.files, self.interval
        log, charges, trajectory = (
            path.name in self._marks for path in (files.log, files.charges, files.trajectory)
        )
        freedom = degrees_of_freedom(self.simulation.system)
        self.log = LogReporter(files.log, interval, freedom, self.progress.speed, log)
        self.charges = ChargeReporter(files.charges, interval, append=charges)
        self.trajectory = app.DCDReporter(
            str(files.trajectory), interval, append=trajectory, enforcePeriodicBox=False
        )
        # the stability check comes first: a frame that fails it is not written
        self.simulation.reporters.extend([self.guard, self.trajectory, self.log])
        if self.options.backend in ("auto", "python"):  # otherwise it would need evaluations
            more = files.energies.name in self._marks
            self.energies = EnergyReporter(files.energies, interval, append=more)
            self.simulation.reporters.append(self.energies)
        self.simulation.reporters.append(self.charges)
        if self.others:  # the last reporter: it may end the run
            self.committee = CommitteeReporter(
                files.spread,
                interval,
                self.others,
                self.options.spread_threshold,
                self.options.on_spread,
                files.uncertain,
                self._first_step > 0,
            )
            self.simulation.reporters.append(self.committee)

    # -------------------------------------------------------------------- run

    def go(self) -> MDResult:
        """Integrate all steps, then write the final files."""
        last = self._first_step + self.options.steps
        self.progress.start(self._first_step)
        uncertain: UncertaintyError | None = None
        try:
            while self.simulation.currentStep < last and not self.stop:
                self._advance(last)
        except UncertaintyError as error:
            uncertain = error
        except (NequIPLRError, openmm.OpenMMException, OSError) as error:
            raise self._failed(error) from error
        finally:
            self._close()
        try:
            if self.simulation.currentStep != self._saved_step:
                self.save_checkpoint()
        except (NequIPLRError, openmm.OpenMMException, OSError) as error:
            raise self._failed(error) from error
        result = self._finish()
        if self.committee is not None:
            self.say(
                f"committee: forces spread by {self.committee.largest:.3g} eV/Å at most, "
                f"{self.committee.saved} frames saved as uncertain"
            )
        if self.stop:
            raise Interrupted(
                f"stopped by {self.stop.name} at step {result.steps} of {last}; --restart "
                f"continues from there (--output {self.files.directory})",
                self.stop.number,
            )
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
        self.progress.show(step, last, self.log.last.get("temperature_K"))

    def save_checkpoint(self) -> None:
        """Write a checkpoint, after an evaluation has shown that the state is stable.

        Raises
        ------
        InstabilityError
            If the state is unstable; the previous checkpoint is kept.
        """
        self.guard.check(self.simulation)
        context = self.simulation.context
        self._marks = self.files.marks(self._marks)
        random = None if self.options.ensemble == "nve" else RandomState.of(context)
        state = context.getState(positions=True, velocities=True)
        replace_file(
            self.files.checkpoint,
            Checkpoint(state, self._marks, random).dumps(),
            self.files.previous_checkpoint,
        )
        self._saved_step = self.simulation.currentStep

    def _close(self) -> None:
        # OpenMM closes the trajectory when its reporter is deleted, and does not suppress errors
        handles = [self.log, self.energies, self.charges, self.trajectory._out, self.committee]
        for handle in handles:
            if handle is not None:
                with suppress(OSError):  # a full disk: a restart truncates the file
                    handle.close()
        self.simulation.reporters.clear()

    # --------------------------------------------------------------- failures

    def _cause(self, error: Exception) -> BaseException:
        there = self.files.checkpoint.is_file()
        advice = self._hint() if there else "nothing was written"
        return cause_of(error, self.computation.failure, self.stop, advice)

    def _hint(self) -> str:
        return f"--restart continues from the last good checkpoint, at step {self._saved_step}"

    def _failed(self, error: Exception) -> BaseException:
        """The error to raise when integration has failed."""
        found = described(self._cause(error), self.simulation.currentStep, self._hint())
        if isinstance(found, InstabilityError):
            with suppress(Exception):  # the file is only a help for diagnosis
                self._write_unstable()
        return found

    def _write_unstable(self) -> None:
        state = self.simulation.context.getState(positions=True)
        positions, cell = self.computation.geometry(state)
        if all(map(math.isfinite, positions.ravel())):
            self._as_atoms(positions, cell).write(str(self.files.unstable), format="extxyz")

    # -------------------------------------------------------------------- end

    def _finish(self) -> MDResult:
        speed = self.progress.speed(self.simulation.currentStep)
        state = self.simulation.context.getState(positions=True)
        positions, cell = self.computation.geometry(state)
        evaluation = self.computation.evaluate(positions, cell)
        atoms = self._as_atoms(positions, cell)
        atoms.set_initial_charges(evaluation.charges)
        atoms.write(str(self.files.final), format="extxyz")
        self._draw()
        return MDResult(
            files=self.files,
            steps=self.simulation.currentStep,
            time=state.getTime().value_in_unit(unit.picosecond),
            ns_per_day=speed,
            potential_energy=evaluation.energy,
            temperature=self.log.last.get("temperature_K", float("nan")),
        )

    def _draw(self) -> None:
        options, files = self.options, self.files
        name = "/".join(Path(options.model).parts[-2:])  # model.safetensors alone is not specific
        draw_summary(
            files.log,
            files.charges,
            self.symbols,
            options.charge_of or rarest_element(self.symbols),
            files.summary,
            f"{name}, {len(self.symbols)} atoms, {options.ensemble.upper()}",
            None if options.ensemble == "nve" else options.temperature,
            options.pressure if options.ensemble == "npt" else None,
            float(self.masses.sum()),
        )

    def _as_atoms(self, positions: np.ndarray, cell: np.ndarray | None) -> Atoms:
        atoms = to_atoms(
            self.simulation.topology,
            positions / ANGSTROM_PER_NM,
            None if cell is None else cell / ANGSTROM_PER_NM,
            masses=self.masses,
            slab=self.options.slab,
        )
        atoms.info["total_charge"] = self.options.total_charge
        self.computation.settings.charge_conditions.tell(atoms)
        return atoms


def _warn(text: str) -> None:
    """Print a warning, also if the run is quiet."""
    print(f"nequiplr: warning: {text}", file=sys.stderr, flush=True)
