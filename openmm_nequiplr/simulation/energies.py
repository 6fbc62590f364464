"""Contributions to the energy along a simulation."""

from __future__ import annotations

import os
from typing import TextIO

import openmm
from openmm import app, unit

from ..errors import InputError, describe
from .reporters import FileReporter, check_kept, check_untouched

PARTS = ("short_range", "electronegativity", "hardness", "coulomb", "outside")
COLUMNS = ("step", "time_ps", *(f"{part}_eV" for part in PARTS), "model_eV")
ELECTRODES = ("first_electrode_e", "second_electrode_e")


class EnergyReporter(FileReporter):
    """Writes the contributions to the model's energy as a CSV table, one row per reported frame.

    The columns are the step, the time (ps) and, in eV: the short-range energy; the
    electronegativity energy χ·Q and the hardness energy ½JQ² (both zero in a model whose
    electrostatic energy is only the Coulomb energy); the Coulomb energy; the interaction with a
    field or external charges, minus the work of a voltage source; and their sum. The sum is the
    energy of the model before scaling by ``model_scale``; it excludes other forces of the System.
    With electrodes two more columns contain their charges (e).

    With a ``PythonForce`` a report needs no extra evaluation if another reporter, such as
    ``StateDataReporter``, requests the energy. With a TorchForce it needs one.

    Parameters
    ----------
    file : str or path
    reportInterval : int
        Steps between rows.
    append : bool
        Continue an existing file, after dropping rows later than the current step, with a notice.

    Raises
    ------
    InputError
        If the interval is not positive, the existing file has other columns or only rows later than
        the current step, or something else writes to the file.
    """

    _size = 0

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        file, computation = self._open(simulation), self._own(simulation)
        conditions = computation.conditions(state)
        evaluation = computation.evaluate(*computation.geometry(state), conditions)
        values = [evaluation.parts.get(part, 0.0) for part in PARTS]
        time = state.getTime().value_in_unit(unit.picosecond)
        charges = [
            evaluation.charges[list(atoms)].sum() for atoms in computation.settings.electrodes or ()
        ]
        numbers = ",".join(f"{value:.8f}" for value in (*values, evaluation.energy, *charges))
        check_untouched(self._path, file, self._size)
        self._write(f"{simulation.currentStep},{time:.6f},{numbers}\n")

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        self._size = os.fstat(self._file.fileno()).st_size

    def _open(self, simulation: app.Simulation) -> TextIO:
        """The open file, with a header and the rows up to the current step."""
        if self._file is not None:
            return self._file
        more = () if self._own(simulation).settings.electrodes is None else ELECTRODES
        columns = (*COLUMNS, *more)
        header, step = ",".join(columns), simulation.currentStep
        rows: list[str] = []
        if self._append and self._path.exists():
            found, *rows = self._path.read_text(encoding="utf-8").splitlines() or [""]
            if found != header:
                expected = f"a table with the columns {header}"
                raise InputError(describe("file", str(self._path), expected))
        complete = [row for row in rows if row.count(",") == len(columns) - 1]
        kept = [row for row in complete if int(row.split(",")[0]) <= step]
        check_kept(self._path, len(kept), len(complete) - len(kept), step)
        self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115
        self._write("\n".join([header, *kept]) + "\n")
        return self._file
