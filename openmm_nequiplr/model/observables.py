"""Observables of the charges with exact gradients: charges of groups, and components of a dipole.

The gradient follows from an adjoint solve, see :mod:`.response`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..checks import is_number, is_whole
from ..errors import InputError, describe


@dataclass(frozen=True)
class GroupCharge:
    """Charge of a group of atoms, or the difference of two groups, e.

    Parameters
    ----------
    atoms : sequence of int
        Indices of atoms.
    minus : sequence of int
        Indices of atoms whose charge is subtracted.

    Raises
    ------
    InputError
        If an index is invalid or occurs twice, or there is none.
    """

    atoms: tuple[int, ...]
    minus: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", _indices("atoms", self.atoms))
        object.__setattr__(self, "minus", _indices("minus", self.minus, empty=True))
        if set(self.atoms) & set(self.minus):
            raise InputError(describe("minus", self.minus, "none of the atoms of the first group"))

    @property
    def largest(self) -> int:
        """The largest index."""
        return max(self.atoms + self.minus)

    def __call__(
        self,
        charges: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor | None,
        slab: bool = False,
    ) -> torch.Tensor:
        """The charge, a differentiable scalar; arguments as for :class:`GroupDipole`."""
        total = charges[list(self.atoms)].sum()
        return total - charges[list(self.minus)].sum() if self.minus else total


@dataclass(frozen=True)
class GroupDipole:
    """Component of the dipole of a group of atoms about its centre, e Å.

    It is Σ Q (r − c)·n with the mean position c. It does not depend on the origin, even for charged
    groups, nor on the images of atoms in a cell that is more than twice as wide as the group.

    Parameters
    ----------
    direction : sequence of 3 float
        Direction n, which is normalised.
    atoms : sequence of int, optional
        Indices of atoms; by default all, for isolated structures.

    Raises
    ------
    InputError
        If the direction is invalid, or an index is invalid or occurs twice.
    """

    direction: tuple[float, float, float]
    atoms: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        values = self.direction
        good = isinstance(values, Iterable) and not isinstance(values, str)
        given = list(values) if good else []
        if len(given) != 3 or not all(map(is_number, given)) or not any(given):
            raise InputError(describe("direction", values, "three finite numbers, not all zero"))
        size = math.hypot(*given)
        object.__setattr__(self, "direction", tuple(float(value) / size for value in given))
        if self.atoms is not None:
            object.__setattr__(self, "atoms", _indices("atoms", self.atoms))

    @property
    def largest(self) -> int:
        """The largest index."""
        return 0 if self.atoms is None else max(self.atoms)

    def __call__(
        self,
        charges: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor | None,
        slab: bool = False,
    ) -> torch.Tensor:
        """The component, a differentiable scalar.

        Parameters
        ----------
        charges : torch.Tensor, float64, shape (N,), e
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor or None, float64, shape (3, 3), Å
            Rows are lattice vectors.
        slab : bool
            Whether there are no images along the third lattice vector.
        """
        if self.atoms is not None:
            charges, positions = charges[list(self.atoms)], positions[list(self.atoms)]
        elif cell is not None:
            expected = "the atoms of a group, as the dipole of a cell depends on the images"
            raise InputError(describe("atoms", None, expected))
        if cell is not None:
            apart = (positions - positions[:1]).detach()
            images = torch.round(apart @ torch.linalg.inv(cell))
            if slab:
                images[:, 2] = 0.0
            positions = positions - images @ cell
        away = positions - positions.mean(dim=0)
        return charges @ (away @ positions.new_tensor(self.direction))


Observable = GroupCharge | GroupDipole


@dataclass(frozen=True)
class Observation:
    """Value and gradient of an observable of a structure of N atoms.

    Parameters
    ----------
    value : float
        Charge (e) or dipole (e Å).
    gradient : numpy.ndarray, float64, shape (N, 3)
        Gradient by the positions, including the response of the charges; e/Å or e. With M outside
        charges the shape is (N + M, 3).
    """

    value: float
    gradient: np.ndarray


def check_observable(observable: Any, count: int) -> None:
    """Check that an object is an observable of a structure with ``count`` atoms.

    Raises
    ------
    InputError
        If it is not, or an index is too large.
    """
    if not isinstance(observable, GroupCharge | GroupDipole):
        got = type(observable).__name__
        raise InputError(describe("observable", got, "a GroupCharge or a GroupDipole"))
    if observable.largest >= count:
        expected = f"indices from 0 to {count - 1}"
        raise InputError(describe("observable", observable.largest, expected))


def _indices(name: str, values: Any, empty: bool = False) -> tuple[int, ...]:
    expected = "different indices, not negative"
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(describe(name, values, expected))
    given = list(values)
    whole = all(map(is_whole, given))
    if not whole or any(k < 0 for k in given) or len(set(given)) < len(given):
        raise InputError(describe(name, values, expected))
    if not given and not empty:
        raise InputError(describe(name, "none", "at least one atom"))
    return tuple(int(k) for k in given)
