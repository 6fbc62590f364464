"""The files of a molecular dynamics run, and how they are cut back for a restart."""

from __future__ import annotations

import csv
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError, describe
from ..units import ANGSTROM_PER_NM, BOLTZMANN, EV_TO_KJ_PER_MOL

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

# Offsets in a DCD header as OpenMM writes it.
_DCD_HEADER = 276
_DCD_COUNT, _DCD_FIRST, _DCD_INTERVAL, _DCD_LAST, _DCD_BOX, _DCD_ATOMS = 8, 12, 16, 20, 48, 268


@dataclass(frozen=True)
class RunFiles:
    """Paths of everything in the output directory of a run."""

    directory: Path

    @property
    def settings(self) -> Path:
        """What the run was asked for (JSON)."""
        return self.directory / "run.json"

    @property
    def topology(self) -> Path:
        """Start structure; the topology that readers of the DCD file need."""
        return self.directory / "topology.pdb"

    @property
    def trajectory(self) -> Path:
        """Positions and boxes (DCD)."""
        return self.directory / "trajectory.dcd"

    @property
    def log(self) -> Path:
        """Energies, temperature, volume and speed (CSV)."""
        return self.directory / "log.csv"

    @property
    def charges(self) -> Path:
        """Charges and dipoles (NumPy records), see ``load_charges``."""
        return self.directory / "charges.npy"

    @property
    def spread(self) -> Path:
        """Spread of a committee (NumPy records), see ``load_spread``."""
        return self.directory / "spread.npy"

    @property
    def uncertain(self) -> Path:
        """Frames in which a committee is spread beyond the threshold (extended XYZ)."""
        return self.directory / "uncertain.extxyz"

    @property
    def checkpoint(self) -> Path:
        """State to continue from (OpenMM XML, valid on every platform)."""
        return self.directory / "checkpoint.xml"

    @property
    def final(self) -> Path:
        """Last structure with its charges (extended XYZ)."""
        return self.directory / "final.extxyz"

    @property
    def summary(self) -> Path:
        """Picture of the run."""
        return self.directory / "summary.png"

    def prepare(self, restart: bool) -> None:
        """Check that a run may begin here, and make the directory.

        Raises
        ------
        InputError
            If there are results and this is no restart, or nothing to restart from.
        """
        if restart:
            missing = [p.name for p in (self.checkpoint, self.topology) if not p.is_file()]
            if missing:
                raise InputError(
                    f"restart: expected a run to continue in {self.directory}, got none "
                    f"({' and '.join(missing)} missing); leave out --restart to begin one"
                )
            return
        results = (self.checkpoint, self.trajectory, self.log, self.charges)
        if any(path.exists() for path in results):
            raise InputError(
                f"output: expected a directory without results, got {self.directory}; use "
                "--restart to continue that run, or another directory"
            )
        self.directory.mkdir(parents=True, exist_ok=True)

    def load_checkpoint(self, num_atoms: int) -> openmm.State:
        """Read the state to continue from.

        Raises
        ------
        InputError
            If it is damaged or of another system.
        """
        try:
            state = openmm.XmlSerializer.deserialize(self.checkpoint.read_text("utf-8"))
            count = len(state.getPositions(asNumpy=True))
        except (openmm.OpenMMException, AttributeError, ValueError) as error:
            got = f"{self.checkpoint} ({error})"
            raise InputError(describe("checkpoint", got, "an OpenMM State as XML")) from error
        if count != num_atoms:
            expected = f"a state of {num_atoms} atoms"
            raise InputError(describe("checkpoint", f"{count} atoms", expected))
        return state

    def cut_back(self, step: int) -> int:
        """Drop what log and trajectory hold beyond ``step``; return the number of frames left."""
        frames = _cut_log(self.log, step)
        if frames:
            cut_dcd(self.trajectory, frames)
        return frames


def save_atomically(path: Path, content: str) -> None:
    """Write a text file so that it is either the old one or the new one at any time."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(part, path)


def read_settings(path: Path) -> dict[str, Any]:
    """Read what a run was asked for; empty if the file is missing."""
    if not path.is_file():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read a log as one array per column, each of shape (F,).

    Raises
    ------
    InputError
        If it is not a log of this package.
    """
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    if not rows or tuple(rows[0]) != LOG_COLUMNS:
        raise InputError(describe("log", str(path), "a CSV file with " + ", ".join(LOG_COLUMNS)))
    # a row cut off by a kill is not a row
    complete = [[float(x) for x in row] for row in rows[1:] if len(row) == len(LOG_COLUMNS)]
    values = np.array(complete, dtype=np.float64).reshape(-1, len(LOG_COLUMNS))
    return dict(zip(LOG_COLUMNS, values.T, strict=True))


def _cut_log(path: Path, step: int) -> int:
    """Keep the rows up to ``step``; return their number."""
    if not path.is_file():
        return 0
    kept, count = [], 0
    with open(path, encoding="utf-8") as handle:
        for number, line in enumerate(handle):
            if number == 0:
                kept.append(line)
            elif line.endswith("\n") and int(line.split(",", 1)[0]) <= step:
                kept.append(line)
                count += 1
    save_atomically(path, "".join(kept))
    return count


def cut_dcd(path: Path, frames: int) -> None:
    """Keep the first frames of a DCD file that OpenMM wrote.

    Raises
    ------
    InputError
        If it holds fewer, or is no such file.
    """
    with open(path, "r+b") as handle:
        header = handle.read(_DCD_HEADER)
        if len(header) < _DCD_HEADER or header[4:8] != b"CORD":
            raise InputError(describe("trajectory", str(path), "a DCD file written by OpenMM"))

        def number(offset: int) -> int:
            return int(struct.unpack_from("<i", header, offset)[0])

        size = 3 * (8 + 4 * number(_DCD_ATOMS)) + (56 if number(_DCD_BOX) else 0)
        handle.seek(0, os.SEEK_END)
        there = (handle.tell() - _DCD_HEADER) // size
        if there < frames:
            raise InputError(describe("trajectory", f"{there} frames in {path}", f"{frames}"))
        handle.truncate(_DCD_HEADER + frames * size)
        last = number(_DCD_FIRST) + (frames - 1) * number(_DCD_INTERVAL)
        for offset, value in ((_DCD_COUNT, frames), (_DCD_LAST, last)):
            handle.seek(offset)
            handle.write(struct.pack("<i", value))


class LogReporter:
    """Writes one row of :data:`LOG_COLUMNS` per report.

    Parameters
    ----------
    file : path
    interval : int
        Steps between reports.
    degrees_of_freedom : int
        For the temperature.
    clock : callable
        ``clock(step)`` returns the speed in ns/day.
    append : bool
        Continue an existing file.
    """

    def __init__(
        self, file: Path, interval: int, degrees_of_freedom: int, clock: Any, append: bool
    ) -> None:
        self._interval = interval
        self._freedom = degrees_of_freedom
        self._clock = clock
        self._file: TextIO = open(  # noqa: SIM115
            file, "a" if append else "w", newline="", encoding="utf-8"
        )
        #: The last row by column name; empty before the first report.
        self.last: dict[str, float] = {}
        if not append:
            self._file.write(",".join(LOG_COLUMNS) + "\n")
            self._file.flush()

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """Say when the next report is due."""
        steps = self._interval - simulation.currentStep % self._interval
        # positions of the same kind as the charge reporter's: one State serves both
        return {"steps": steps, "periodic": False, "include": ["positions", "energy"]}

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
            2.0 * kinetic / (max(self._freedom, 1) * BOLTZMANN),
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
