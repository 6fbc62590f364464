"""A stored trajectory: frames in Å that are read any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import InputError, describe
from ..fragments import Groups

if TYPE_CHECKING:
    import mdtraj
    from ase import Atoms

#: What can be read: a file, the output directory of ``nequiplr md``, or what is in memory.
TrajectoryLike: TypeAlias = "str | Path | mdtraj.Trajectory | Sequence[Atoms] | StoredTrajectory"


@dataclass(frozen=True)
class Frame:
    """One frame of a trajectory.

    Parameters
    ----------
    index : int
        Its number in the trajectory as stored, from 0.
    time : float, ps
        NaN where the trajectory does not tell.
    positions : numpy.ndarray, float64, shape (N, 3), Å
    cell : numpy.ndarray, float64, shape (3, 3), Å, or None
        Rows are lattice vectors; ``None`` without periodicity.
    electric_field : numpy.ndarray, float64, shape (3,), V/Å, or None
        Uniform field that it was in; ``None`` where the trajectory tells of none.
    slab : bool
        Whether the cell is that of a slab.
    """

    index: int
    time: float
    positions: np.ndarray
    cell: np.ndarray | None
    electric_field: np.ndarray | None = None
    slab: bool = False


@dataclass(frozen=True)
class StoredTrajectory:
    """A trajectory of N atoms that is read frame by frame, any number of times.

    Parameters
    ----------
    source : str
        Where it comes from, for messages.
    symbols : tuple of str, length N
    total_charge : float or None, e
        ``None`` where the source does not tell.
    stride : int
        Every so many frames are read.
    recorded : path or None
        Charges that were recorded during the run, frame by frame.
    charge_groups, group_charges : optional, shapes (N,) and (F,)
        Group of each atom and their charges, e, where the source tells that these are held.
    electrodes : optional
        Indices of the atoms of two electrodes, where the source tells of some.
    electrode_voltage : float, V
    """

    source: str
    symbols: tuple[str, ...]
    total_charge: float | None
    stride: int
    recorded: Path | None = None
    _read: Callable[[], Iterable[Frame]] = field(default=tuple, repr=False)
    charge_groups: Groups = None
    group_charges: Sequence[float] | np.ndarray | None = None
    electrodes: Sequence[Sequence[int]] | None = None
    electrode_voltage: float = 0.0

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return len(self.symbols)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """Frames in their order; a few are in memory at a time.

        Parameters
        ----------
        skip : int
            Leave out the first ones (counted after the stride).

        Raises
        ------
        InputError
            If a frame cannot be read or does not have the atoms of the first one.
        """
        try:
            yield from islice(self._read(), skip * self.stride, None, self.stride)
        except (InputError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # readers raise errors of any type
            raise InputError(
                describe("trajectory", f"{self.source} ({error})", "a readable trajectory")
            ) from error
