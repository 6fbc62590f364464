"""Stored trajectories, whose frames can be read repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..conditions import UNCONDITIONED, ChargeConditions
from ..errors import InputError, describe

if TYPE_CHECKING:
    import mdtraj
    from ase import Atoms

#: A trajectory file, the output directory of ``nequiplr md``, or a trajectory in memory.
TrajectoryLike: TypeAlias = "str | Path | mdtraj.Trajectory | Sequence[Atoms] | StoredTrajectory"


@dataclass(frozen=True)
class Frame:
    """One frame of a trajectory.

    Parameters
    ----------
    index : int
        Index in the stored trajectory, from 0.
    time : float, ps
        NaN if unknown.
    positions : numpy.ndarray, float64, shape (N, 3), Å
    cell : numpy.ndarray, float64, shape (3, 3), Å, or None
        Rows are lattice vectors; ``None`` for a frame that is not periodic.
    electric_field : numpy.ndarray, float64, shape (3,), V/Å, or None
        Uniform external field, if the trajectory contains one.
    slab : bool
        Whether the frame is a slab.
    """

    index: int
    time: float
    positions: np.ndarray
    cell: np.ndarray | None
    electric_field: np.ndarray | None = None
    slab: bool = False


@dataclass(frozen=True)
class StoredTrajectory:
    """A trajectory of N atoms, read frame by frame.

    Parameters
    ----------
    source : str
        Origin of the trajectory, for messages.
    symbols : tuple of str, length N
    total_charge : float or None, e
        ``None`` if the source does not specify it.
    stride : int
        Read every ``stride``-th frame.
    recorded : path or None
        File of the charges recorded during the run, for each frame.
    conditions : ChargeConditions
        Charge groups and electrodes, if the source specifies them; fields are those of frames.
    """

    source: str
    symbols: tuple[str, ...]
    total_charge: float | None
    stride: int
    recorded: Path | None = None
    _read: Callable[[], Iterable[Frame]] = field(default=tuple, repr=False)
    conditions: ChargeConditions = UNCONDITIONED

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return len(self.symbols)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """Iterate over the frames, with few of them in memory.

        Parameters
        ----------
        skip : int
            Number of frames to skip at the start (counted after the stride).

        Raises
        ------
        InputError
            If a frame cannot be read or its atoms differ from those of the first one.
        """
        try:
            yield from islice(self._read(), skip * self.stride, None, self.stride)
        except (InputError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # readers raise errors of any type
            raise InputError(
                describe("trajectory", f"{self.source} ({error})", "a readable trajectory")
            ) from error
