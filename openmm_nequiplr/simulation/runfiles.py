"""Files and results of a molecular dynamics run."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError, describe
from ..units import ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
from .limits import temperature_of
from .marks import FileMark, compare, cut_to, extend_mark
from .reporters import Reporter

LOG_COLUMNS = (
    "step",
    "time_ps",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "temperature_K",
    "volume_A3",
    "speed_ns_per_day",
)


def _file(name: str, what: str) -> Any:
    return property(lambda files: files.directory / name, doc=what)


@dataclass(frozen=True)
class RunFiles:
    """Paths of all files in the output directory of a run."""

    directory: Path

    settings = _file("run.json", "Options of the run (JSON).")
    topology = _file("topology.pdb", "Start structure and topology (PDB).")
    trajectory = _file("trajectory.dcd", "Positions and boxes (DCD).")
    log = _file("log.csv", "Energies, temperature, volume and speed (CSV).")
    charges = _file("charges.npy", "Charges and dipoles (NumPy records), see ``load_charges``.")
    energies = _file("energies.csv", "Parts of the energy (CSV), see ``EnergyReporter``.")
    spread = _file("spread.npy", "Spread of a committee (NumPy records), see ``load_spread``.")
    uncertain = _file("uncertain.extxyz", "Frames with too large a spread (extended XYZ).")
    checkpoint = _file("checkpoint.xml", "State to continue from, see :mod:`.checkpoint`.")
    final = _file("final.extxyz", "Last structure with its charges (extended XYZ).")
    summary = _file("summary.png", "Picture of the run.")
    previous_checkpoint = _file("checkpoint.previous.xml", "The checkpoint before the last one.")
    unstable = _file("unstable.extxyz", "Structure of an unstable stop (extended XYZ).")

    @property
    def growing(self) -> tuple[Path, ...]:
        """Files that grow during the run."""
        return (
            self.log,
            self.energies,
            self.charges,
            self.trajectory,
            self.spread,
            self.uncertain,
        )

    @property
    def fixed(self) -> tuple[Path, ...]:
        """Files that are written once, at the start of the run."""
        return (self.settings, self.topology)

    def require(self) -> None:
        """Check that there is a run to continue.

        Raises
        ------
        InputError
            If a required file is missing.
        """
        needed = (self.checkpoint, self.topology, self.settings)
        missing = [path.name for path in needed if not path.is_file()]
        if not missing:
            return
        remedy = "leave out --restart to begin one"
        if self.previous_checkpoint.is_file() and missing == [self.checkpoint.name]:
            remedy = f"rename {self.previous_checkpoint.name} to continue from an earlier step"
        elif len(missing) < len(needed):
            remedy = "put the files back, or begin a run in another directory"
        raise InputError(
            f"restart: expected a run to continue in {self.directory}, got none "
            f"({' and '.join(missing)} missing); {remedy}"
        )

    def refuse_results(self) -> None:
        """Check that the directory contains no results.

        Raises
        ------
        InputError
            If it contains results.
        """
        results = (self.checkpoint, self.previous_checkpoint, *self.growing)
        if any(path.exists() for path in results):
            raise InputError(
                f"output: expected a directory without results, got {self.directory}; use "
                "--restart to continue that run, or another directory"
            )

    def marks(self, known: dict[str, FileMark]) -> dict[str, FileMark]:
        """Marks of the present files, by name, for a new checkpoint.

        Parameters
        ----------
        known : dict of str to FileMark
            Marks of an earlier checkpoint of this run.
        """
        there = [p for p in (*self.growing, *self.fixed) if p.is_file() and p.stat().st_size]
        return {path.name: extend_mark(path, known.get(path.name)) for path in there}

    def differences(self, marks: dict[str, FileMark]) -> list[str]:
        """Messages on how the files differ from the marks of a checkpoint."""
        fixed = {path.name for path in self.fixed}
        known = fixed | {path.name for path in self.growing}
        missing = [f"no record of {name}" for name in sorted(fixed - marks.keys())]
        found = [
            compare(self.directory / name, mark, whole=name in fixed)
            for name, mark in marks.items()
            if name in known
        ]
        return missing + [text for text in found if text is not None]

    def cut_back(self, marks: dict[str, FileMark]) -> None:
        """Truncate the growing files to a checkpoint."""
        for path in self.growing:
            if path.name in marks:
                cut_to(path, marks[path.name])


@dataclass(frozen=True)
class MDResult:
    """Results of a run.

    Parameters
    ----------
    files : RunFiles
        Paths of the results.
    steps : int
        Steps of the whole run, including earlier parts.
    time : float, ps
    ns_per_day : float
    potential_energy : float, eV
    temperature : float, K
        At the last report; NaN without a report.
    """

    files: RunFiles
    steps: int
    time: float
    ns_per_day: float
    potential_energy: float
    temperature: float


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings file of a run.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    expected = "the settings of the run, a JSON object"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(describe("restart", f"no file {path}", expected)) from None
    except ValueError as error:
        raise InputError(describe("restart", f"{path} ({error})", expected)) from error
    if not isinstance(settings, dict):
        raise InputError(describe("restart", f"{path} with something else", expected))
    return settings


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read the log of a run as one array per column, each of shape (F,).

    Raises
    ------
    InputError
        If the file is not a log of this package.
    """
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    if not rows or tuple(rows[0]) != LOG_COLUMNS:
        raise InputError(describe("log", str(path), "a CSV file with " + ", ".join(LOG_COLUMNS)))
    # an incomplete row of a killed run is ignored
    complete = [[float(x) for x in row] for row in rows[1:] if len(row) == len(LOG_COLUMNS)]
    values = np.array(complete, dtype=np.float64).reshape(-1, len(LOG_COLUMNS))
    return dict(zip(LOG_COLUMNS, values.T, strict=True))


class LogReporter(Reporter):
    """Writes one row of :data:`LOG_COLUMNS` per report.

    Parameters
    ----------
    file : path
    interval : int
        Steps between reports.
    degrees_of_freedom : int
        Number of degrees of freedom, which determines the temperature.
    clock : callable
        ``clock(step)`` returns the speed in ns/day.
    append : bool
        Continue an existing file.
    """

    include = ("positions", "energy")

    def __init__(
        self, file: Path, interval: int, degrees_of_freedom: int, clock: Any, append: bool
    ) -> None:
        super().__init__(interval)
        self._freedom = degrees_of_freedom
        self._clock = clock
        self._file: TextIO = open(  # noqa: SIM115
            file, "a" if append else "w", newline="", encoding="utf-8"
        )
        #: Values of the last row, by column name; empty before the first report.
        self.last: dict[str, float] = {}
        if not append:
            self._file.write(",".join(LOG_COLUMNS) + "\n")
            self._file.flush()

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        step = simulation.currentStep
        potential = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
        kinetic = state.getKineticEnergy()._value / EV_TO_KJ_PER_MOL
        periodic = simulation.system.usesPeriodicBoundaryConditions()
        volume = state.getPeriodicBoxVolume()._value * ANGSTROM_PER_NM**3 if periodic else 0.0
        values = (
            step,
            state.getTime().value_in_unit(unit.picosecond),
            potential,
            kinetic,
            potential + kinetic,
            temperature_of(state.getKineticEnergy()._value, self._freedom),
            volume,
            self._clock(step),
        )
        self.last = dict(zip(LOG_COLUMNS, values, strict=True))
        text = "{:d},{:.6f},{:.8f},{:.8f},{:.8f},{:.3f},{:.4f},{:.4g}\n"
        self._file.write(text.format(*values))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
