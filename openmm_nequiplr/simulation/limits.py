"""Stability criteria of a simulation: distances, temperature, energy and charges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers
from scipy.special import chdtri

from ..analysis.contacts import CHARGE_RANGE, closest_contact, known_charges, widened
from ..units import BOLTZMANN, EV_TO_KJ_PER_MOL

#: Actions when a simulation becomes unstable.
ON_UNSTABLE = ("stop", "warn")
# The temperature limit is this multiple of the target, or the temperature that a canonical ensemble
# exceeds with this probability, plus the heat that a strained start may release (K).
_HOT, _CHANCE, _RELEASED = 2.0, 1e-7, 500.0
# Allowed decrease of the potential energy (eV per atom twice, then eV in total).
_FALL_IN_DYNAMICS, _FALL_IN_MINIMISATION, _FALL = 2.0, 5.0, 5.0
#: Atoms are too close below this fraction of the sum of their covalent radii.
HALF_BOND = 0.5


class ChargeLimits:
    """Allowed charges of atoms: the range of the training data with a margin.

    Parameters
    ----------
    ranges : mapping of str to (float, float)
        Smallest and largest charge of each element in the training data, e. Other elements have no
        limits.
    symbols : sequence of str, length N
    """

    def __init__(self, ranges: Mapping[str, tuple[float, float]], symbols: Sequence[str]) -> None:
        self._symbols = symbols
        self._ranges = ranges
        everything = (-math.inf, math.inf)
        limits = np.array([widened(*ranges[s]) if s in ranges else everything for s in symbols])
        self._least, self._most = np.ascontiguousarray(limits.T)

    @classmethod
    def of(cls, metadata: Mapping[str, str], symbols: Sequence[str]) -> ChargeLimits | None:
        """Limits from the metadata of a model file; ``None`` if it contains no range.

        Raises
        ------
        ModelFileError
            If the entry is not JSON of the form ``{"H": [0.1, 0.3]}``.
        """
        ranges = known_charges(metadata)
        if CHARGE_RANGE not in metadata:
            return None
        return cls(ranges, symbols)

    def trouble(self, charges: np.ndarray, indices: Sequence[int] | None = None) -> str | None:
        """Message about charges outside the limits, or ``None``.

        Parameters
        ----------
        charges : numpy.ndarray, shape (N,), e
        indices : sequence of int, length N, optional
            Indices of the atoms in the message.
        """
        outside = np.maximum(charges - self._most, self._least - charges)
        worst = int(outside.argmax())
        if outside[worst] <= 0.0:
            return None
        symbol, count = self._symbols[worst], int((outside > 0.0).sum())
        least, most = self._ranges[symbol]
        others = "" if count == 1 else f" (and {count - 1} more atoms)"
        return (
            f"atom {worst if indices is None else indices[worst]} ({symbol}) has a charge of "
            f"{charges[worst]:.3g} e{others}, far outside the {least:.3g} to {most:.3g} e of the "
            "training data"
        )


class HalfBonds:
    """Finds atoms closer than half a bond, which is half the sum of their covalent radii.

    Parameters
    ----------
    symbols : sequence of str, length N
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = symbols
        self._numbers = np.array([atomic_numbers.get(symbol, 0) for symbol in symbols])

    def trouble(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None,
        indices: Sequence[int] | None = None,
    ) -> str | None:
        """Message about atoms that are too close, or ``None``.

        Positions have shape (N, 3), the cell (3, 3) or ``None``, both in Å.
        """
        contact = closest_contact(self._numbers, positions, cell)
        if contact.ratio >= HALF_BOND:
            return None
        names = [
            f"{k if indices is None else indices[k]} ({self._symbols[k]})" for k in contact.atoms
        ]
        half = HALF_BOND * contact.distance / contact.ratio
        return (
            f"atoms {names[0]} and {names[1]} are {contact.distance:.2f} Å apart, nearer than half "
            f"a bond ({half:.2f} Å)"
        )


def temperature_of(kinetic_energy: float, degrees_of_freedom: int) -> float:
    """Temperature (K) of a kinetic energy (kJ/mol)."""
    return 2.0 * kinetic_energy / (max(degrees_of_freedom, 1) * BOLTZMANN * EV_TO_KJ_PER_MOL)


def hottest(target: float, degrees_of_freedom: int, strained: bool = True) -> float:
    """Highest temperature (K) of a stable simulation at a target temperature (K).

    The limit is twice the target or, for few degrees of freedom, the temperature that a canonical
    ensemble exceeds with a probability of 1e-7. A strained start may add 500 K.
    """
    freedom = max(degrees_of_freedom, 1)
    limit = target * max(_HOT, float(chdtri(freedom, _CHANCE)) / freedom)
    return limit + (_RELEASED if strained else 0.0)


def deepest_fall(num_atoms: int, minimisation: bool = False) -> float:
    """Largest decrease of the potential energy (eV) that indicates no hole in the potential."""
    each = _FALL_IN_MINIMISATION if minimisation else _FALL_IN_DYNAMICS
    return each * num_atoms + _FALL
