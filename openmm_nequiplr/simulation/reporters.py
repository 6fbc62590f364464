"""Reporters of charges and dipoles along a trajectory."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import openmm
from openmm import app, unit

from ..checks import is_whole
from ..errors import InputError, describe, notify
from ..lattice import continued
from .computation import Computation
from .lookup import get_computation


def record_dtype(num_atoms: int) -> np.dtype:
    """Record of one frame: ``step``, ``time`` (ps), ``dipole`` (e Å), ``charges`` (e)."""
    return np.dtype(
        [
            ("step", "<i8"),
            ("time", "<f8"),
            ("dipole", "<f8", (3,)),
            ("charges", "<f8", (num_atoms,)),
        ]
    )


@dataclass(frozen=True)
class ChargeTrajectory:
    """Charges along a trajectory of F frames and N atoms.

    Parameters
    ----------
    steps : numpy.ndarray, int64, shape (F,)
    times : numpy.ndarray, shape (F,), ps
    dipoles : numpy.ndarray, shape (F, 3), e Å
    charges : numpy.ndarray, shape (F, N), e
    """

    steps: np.ndarray
    times: np.ndarray
    dipoles: np.ndarray
    charges: np.ndarray


class Reporter:
    """Base class of OpenMM reporters with a fixed interval.

    Parameters
    ----------
    reportInterval : int
        Steps between reports.

    Raises
    ------
    InputError
        If the interval is not a positive integer.
    """

    #: Contents of the State that a report needs. Positions are unwrapped, as for other reporters.
    include: tuple[str, ...] = ("positions",)

    def __init__(self, reportInterval: int) -> None:
        if not is_whole(reportInterval) or reportInterval < 1:
            expected = "a whole number of steps, at least 1"
            raise InputError(describe("reportInterval", reportInterval, expected))
        self._interval = int(reportInterval)
        self._computation: Computation | None = None
        self._system: openmm.System | None = None

    def _own(self, simulation: app.Simulation) -> Computation:
        """The computation of the model in a simulation, which may be another one than before."""
        if self._computation is None or simulation.system is not self._system:
            self._computation, self._system = get_computation(simulation.system), simulation.system
        return self._computation

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """When the next report is due, and what it needs."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": False, "include": list(self.include)}


class FileReporter(Reporter):
    """Base class of reporters that write a file, which is opened on first use.

    Parameters
    ----------
    file : str or path
    reportInterval : int
        Steps between frames.
    append : bool
        Continue an existing file.
    """

    def __init__(self, file: str | Path, reportInterval: int, append: bool = False) -> None:
        super().__init__(reportInterval)
        if not isinstance(file, str | os.PathLike):
            raise InputError(describe("file", file, "a path"))
        self._path, self._append = Path(file), append
        self._file: Any = None

    def close(self) -> None:
        """Close the file; a later report reopens it to append."""
        if self._file is not None:
            self._file.close()
            self._file, self._append = None, True

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """When the next report is due, and what it needs; opens the file."""
        self._open(simulation)
        return super().describeNextReport(simulation)

    def _open(self, simulation: app.Simulation) -> Any:
        """The open file, without frames later than the current step."""
        raise NotImplementedError


class RecordReporter(FileReporter):
    """Base class of reporters that write a :class:`RecordFile`."""

    def _open(self, simulation: app.Simulation) -> RecordFile:
        """The open file, without records later than the current step."""
        dtype = self._dtype(simulation)
        if self._file is None:
            file = RecordFile(self._path, dtype, append=self._append)
            if self._append:
                file.truncate_after(simulation.currentStep)
            self._file = file
        if dtype != self._file.dtype:
            got, expected = (
                f"{each['charges'].shape[0]} atoms" for each in (dtype, self._file.dtype)
            )
            raise InputError(describe("simulation", got, f"{expected}, as in {self._path}"))
        return self._file

    def _dtype(self, simulation: app.Simulation) -> np.dtype:
        raise NotImplementedError

    @staticmethod
    def _frame(file: RecordFile, simulation: app.Simulation, state: openmm.State) -> np.ndarray:
        """A record of a frame with step and time filled in."""
        frame = np.zeros((), dtype=file.dtype)
        frame["step"] = simulation.currentStep
        frame["time"] = state.getTime().value_in_unit(unit.picosecond)
        return frame


class ChargeReporter(RecordReporter):
    """Writes charges and dipole of every reported frame.

    The file is a NumPy ``.npy`` array of records (``step``, ``time``, ``dipole``, ``charges``).
    ``numpy.load(file)["charges"]`` has shape (F, N), with the frames of a trajectory written at the
    same interval; ``mmap_mode="r"`` gives access without reading the whole file. Each frame appends
    one record and leaves the file complete, so a killed run loses no frame. :func:`load_charges`
    returns separate arrays.

    The charges are those at the positions of the frame. The dipole is Σ q r with unwrapped
    positions. The reporter unwraps them from its first frame on if a barostat wraps atoms or
    changes the basis of the box. In a periodic box the dipole, and its change as charges change,
    depend on the images of the atoms. Changes of the dipole are meaningful for neutral molecules
    without charge transfer between them.

    Parameters
    ----------
    file : str or path
    reportInterval : int
        Steps between frames.
    append : bool
        Continue an existing file, after dropping frames later than the current step, with a notice.
        Otherwise an existing file is overwritten.

    Raises
    ------
    InputError
        If the interval is not positive, the existing file does not fit or has only frames later
        than the current step, or something else writes to the file.
    """

    _last: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one frame."""
        file, computation = self._open(simulation), self._own(simulation)
        positions, cell = computation.geometry(state)
        charges = computation.charges(positions, cell, computation.conditions(state))
        frame = self._frame(file, simulation, state)
        frame["dipole"] = charges @ self._followed(positions[: len(charges)], cell)
        frame["charges"] = charges
        file.write(frame)

    def _followed(self, positions: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
        """Positions, shape (N, 3), Å, unwrapped relative to those of the previous report.

        Atoms are wrapped only when a barostat changes the box.
        """
        followed = positions
        if self._last is not None and cell is not None:
            given, before, cell_before = self._last
            if cell_before is None or np.array_equal(cell, cell_before):
                followed = before + (positions - given)
            else:
                followed = continued(positions, cell, before, cell_before)
        self._last = positions, followed, cell
        return followed

    def _dtype(self, simulation: app.Simulation) -> np.dtype:
        return record_dtype(self._own(simulation).num_atoms)


def load_charges(file: str | Path) -> ChargeTrajectory:
    """Read a file that a :class:`ChargeReporter` wrote.

    Raises
    ------
    InputError
        If it is another file.
    """
    return ChargeTrajectory(*load_records(file, "ChargeReporter", record_dtype(1)))


def load_records(file: str | Path, writer: str, layout: np.dtype) -> list[np.ndarray]:
    """The fields of a file of records as arrays, in the order of a layout.

    Raises
    ------
    InputError
        If the file is no such file.
    """
    try:
        records = np.load(file)
        return [records[name] for name in layout.names or ()]
    except OSError:
        raise
    except Exception as error:  # numpy's header parser raises errors of several types
        expected = f"a file written by {writer} ({error})"
        raise InputError(describe("file", str(file), expected)) from error


class RecordFile:
    """A ``.npy`` file of records that can be extended and truncated.

    The header has a constant length: NumPy pads it so that the number of records can be updated.

    Parameters
    ----------
    path : path
    dtype : numpy.dtype
        A structured type with a field ``step``.
    append : bool
        Keep the records of an existing file.

    Raises
    ------
    InputError
        If the file to append to holds other records.
    """

    def __init__(self, path: Path, dtype: np.dtype, append: bool = False) -> None:
        self.dtype, self._path = dtype, path
        self._header = len(record_header(dtype, 0))
        old = append and path.exists()
        self._handle = open(path, "r+b" if old else "w+b")  # noqa: SIM115
        self.count = 0
        if old:
            try:
                self._adopt(path)
            except BaseException:
                self._handle.close()
                raise
        else:
            self._write_header()

    def _adopt(self, path: Path) -> None:
        """Keep the existing records of the file."""
        expected = f"records of {self.dtype['charges'].shape[0]} atoms"
        try:
            dtype, count = read_record_header(self._handle)
        except ValueError as error:
            raise InputError(describe("file", str(path), f"{expected} ({error})")) from error
        if dtype != self.dtype or self._handle.tell() != self._header:
            raise InputError(describe("file", f"{path} with other records", expected))
        size = os.fstat(self._handle.fileno()).st_size - self._header
        self.count = min(count, size // self.dtype.itemsize)

    def write(self, record: np.ndarray) -> None:
        """Append one record; the file is complete on return.

        Raises
        ------
        InputError
            If something else has written to the file.
        """
        end = self._header + self.count * self.dtype.itemsize
        check_untouched(self._path, self._handle, end)
        self._handle.seek(end)
        self._handle.write(record.tobytes())
        self._handle.flush()
        self.count += 1
        self._write_header()

    def truncate_after(self, step: int) -> None:
        """Drop the records later than a step, see :func:`check_kept`."""
        before = self.count
        while self.count:
            self._handle.seek(self._header + (self.count - 1) * self.dtype.itemsize)
            last = np.frombuffer(self._handle.read(self.dtype.itemsize), dtype=self.dtype)
            if last["step"][0] <= step:
                break
            self.count -= 1
        try:
            check_kept(self._path, self.count, before - self.count, step)
        except InputError:
            self._handle.close()
            raise
        self._write_header()
        self._handle.truncate(self._header + self.count * self.dtype.itemsize)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _write_header(self) -> None:
        self._handle.seek(0)
        self._handle.write(record_header(self.dtype, self.count))
        self._handle.flush()


def check_kept(path: Path, kept: int, dropped: int, step: int) -> None:
    """Report the frames after a step that are dropped from a file to be continued.

    Raises
    ------
    InputError
        If none would be kept, because then the simulation does not continue the file.
    """
    if dropped and not kept:
        got = f"a simulation at step {step}, before all of the {dropped} frames in {path}"
        expected = "False, or a simulation that continues the file (load its last checkpoint first)"
        raise InputError(describe("append", got, expected))
    if dropped:
        notify(f"{path}: {dropped} frames later than the current step {step} are dropped")


def check_untouched(path: Path, handle: IO[Any], size: int) -> None:
    """Raise :class:`InputError` unless an open file has the size (bytes) that it was left with."""
    found = os.fstat(handle.fileno()).st_size
    if found != size:
        expected = f"a file that nothing else writes to, of {size} bytes"
        raise InputError(describe("file", f"{path} of {found} bytes", expected))


def read_record_header(handle: BinaryIO) -> tuple[np.dtype, int]:
    """Data type and number of the records in a ``.npy`` file.

    Raises
    ------
    ValueError
        If the file is no ``.npy`` file.
    """
    try:
        np.lib.format.read_magic(handle)
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
        return dtype, int(shape[0])
    except Exception as error:  # numpy's parser raises undocumented errors
        raise ValueError(str(error)) from error


def record_header(dtype: np.dtype, count: int) -> bytes:
    """Header of a ``.npy`` file with ``count`` records; its length does not depend on it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)},
    )
    return buffer.getvalue()
