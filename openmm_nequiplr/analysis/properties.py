"""Energies, charges and dipoles of the frames of a trajectory, stored and compared."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, describe
from ..writing import replace_file


@dataclass(frozen=True)
class TrajectoryProperties:
    """Results of a model for F frames of N atoms.

    Parameters
    ----------
    symbols : tuple of str, length N
    frames : numpy.ndarray, int64, shape (F,)
        Indices of the frames in the trajectory, from 0.
    times : numpy.ndarray, float64, shape (F,), ps
        NaN if the trajectory does not contain times.
    energies : numpy.ndarray, float64, shape (F,), eV
    charges : numpy.ndarray, float64, shape (F, N), e
    dipoles : numpy.ndarray, float64, shape (F, 3), e Å
        See :func:`.recomputation.recompute` for their definition in a periodic cell.
    volumes : numpy.ndarray, float64, shape (F,), Å³
        NaN without a cell.
    last_positions : numpy.ndarray, float64, shape (N, 3), Å
        Unwrapped positions in the last frame, from which a continuation starts.
    last_cell : numpy.ndarray, float64, shape (3, 3), Å
        Cell of the last frame; zeros without a cell.
    total_charge : float, e
    model_digest : str
        See :func:`openmm_nequiplr.model.io.model_digest`.
    forces : numpy.ndarray or None, float64, shape (F, N, 3), eV/Å
    born_dipoles : numpy.ndarray or None, float64, shape (F, 3), e Å
        Change of the dipole since the first frame, from Born charges. It does not depend on the
        choice of images, see :func:`.transport.moving_dipole`.
    polarizabilities : numpy.ndarray or None, float64, shape (F, 3, 3), e Å²/V
        NaN in a cell.
    last_born : numpy.ndarray or None, float64, shape (N, 3, 3), e
        Born charges in the last frame.
    last_field : numpy.ndarray or None, float64, shape (3,), V/Å
        Uniform field in the last frame.
    slab : bool
        Whether the last frame is a slab.
    charge_groups : numpy.ndarray or None, int64, shape (N,)
        Group of each atom, if the charges of groups were constrained.
    group_charges : numpy.ndarray or None, float64, shape (G,), e
    applied : numpy.ndarray or None, float64, shape (N,), V
        Voltage on the atoms of the first electrode, minus the voltage on those of the second, 0
        elsewhere.
    """

    symbols: tuple[str, ...]
    frames: np.ndarray
    times: np.ndarray
    energies: np.ndarray
    charges: np.ndarray
    dipoles: np.ndarray
    volumes: np.ndarray
    last_positions: np.ndarray
    last_cell: np.ndarray
    total_charge: float
    model_digest: str
    forces: np.ndarray | None = None
    born_dipoles: np.ndarray | None = None
    polarizabilities: np.ndarray | None = None
    last_born: np.ndarray | None = None
    last_field: np.ndarray | None = None
    slab: bool = False
    charge_groups: np.ndarray | None = None
    group_charges: np.ndarray | None = None
    applied: np.ndarray | None = None

    @property
    def num_frames(self) -> int:
        """Number F of frames."""
        return len(self.frames)

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz`` file with the fields as arrays; an old file is replaced."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values = {name: np.asarray(v) for name, v in values.items() if v is not None}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **values)
        replace_file(path, buffer.getbuffer())

    @classmethod
    def load(cls, path: str | Path) -> TrajectoryProperties:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        InputError
            If it is not such a file.
        """
        try:
            with np.load(path) as file:
                values: dict[str, Any] = {name: file[name] for name in file.files}
            values["symbols"] = tuple(str(symbol) for symbol in values["symbols"])
            values["total_charge"] = float(values["total_charge"])
            values["model_digest"] = str(values["model_digest"])
            values["slab"] = bool(values.get("slab", False))
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            expected = "a file written by TrajectoryProperties.save"
            raise InputError(describe("file", f"{path} ({error})", expected)) from error


def check_same(name: str, old: Any, new: Any) -> None:
    """Refuse to continue from results with another value of a property.

    Raises
    ------
    InputError
        If old and new, which may be arrays or None, are not equal within rounding.
    """
    arrays = isinstance(old, np.ndarray), isinstance(new, np.ndarray)
    same = not any(arrays) and old == new
    if all(arrays):
        same = old.shape == new.shape and np.allclose(old, new, rtol=0.0, atol=1e-9)
    if not same:
        expected = "results of the same model, trajectory and options to go on from"
        raise InputError(describe("resume", f"results of another {name}", expected))
