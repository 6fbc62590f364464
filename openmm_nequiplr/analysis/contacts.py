"""Detection of unphysical structures: atoms too close, charges out of range."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..data.distances import Contact, closest_contact
from ..errors import ModelFileError, describe

__all__ = [
    "ChargeRange",
    "ChargeWatch",
    "Contact",
    "closest_contact",
    "contact_limit",
    "describe_contact",
    "known_charges",
    "widened",
    "widest",
]

#: Smallest and largest charge (e) of the atoms of each element.
ChargeRange = Mapping[str, tuple[float, float]]


#: Key in a model's metadata of the charge ranges in its training data, JSON ``{"H": [min, max]}``.
CHARGE_RANGE = "charge_range"
# Margin of the known range: a fraction of its width, plus a constant in e.
_WIDER, _FARTHER = 0.5, 0.2


def known_charges(metadata: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Charge range of each element in a model's training data, e; empty if not recorded.

    Raises
    ------
    ModelFileError
        If the entry is not JSON of the form ``{"H": [0.1, 0.3]}``.
    """
    text = metadata.get(CHARGE_RANGE)
    if text is None:
        return {}
    try:
        ranges = {
            str(symbol): (float(least), float(most))
            for symbol, (least, most) in dict(json.loads(text)).items()
        }
        if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in ranges.values()):
            raise ValueError("no ranges of finite numbers")
    except (ValueError, TypeError, AttributeError) as error:
        expected = 'JSON such as {"H": [0.1, 0.3]}'
        got = describe(f"model: metadata {CHARGE_RANGE}", text, expected)
        raise ModelFileError(got) from error
    return ranges


def widened(least: float, most: float) -> tuple[float, float]:
    """Allowed range of charges (e): the known range with a margin."""
    margin = _WIDER * (most - least) + _FARTHER
    return least - margin, most + margin


def contact_limit(limit: float, at_first: Contact) -> float:
    """Ratio below which atoms are too close, lowered if the initial structure is close to it."""
    return min(limit, 0.9 * at_first.ratio)


def describe_contact(symbols: Sequence[str], contact: Contact) -> str:
    """Text such as ``C3–C7 0.62 Å apart``, with the indices of the atoms."""
    names = "–".join(f"{symbols[k]}{k}" for k in contact.atoms)
    return f"{names} {contact.distance:.2f} Å apart"


class ChargeWatch:
    """Monitor of the range of charges, and of the first charge outside the allowed range.

    Parameters
    ----------
    symbols : sequence of str, length N
    allowed : mapping of str to (float, float), e
        Allowed ranges; elements without an entry may have any charge.

    Attributes
    ----------
    seen : dict of str to (float, float), e
        Range of the charges of each element so far.
    outside : str
        Description of the first charge outside its range; empty if there is none.
    """

    def __init__(self, symbols: Sequence[str], allowed: ChargeRange | None = None) -> None:
        self.symbols, self.outside = list(symbols), ""
        self.seen: dict[str, tuple[float, float]] = {}
        bounds = [(allowed or {}).get(symbol, (-np.inf, np.inf)) for symbol in self.symbols]
        self.low, self.high = np.array(bounds).T

    def look(self, charges: np.ndarray) -> None:
        """Record the charges (e, shape (N,)) of a structure."""
        names = np.array(self.symbols)
        for element in set(self.symbols):
            chosen = charges[names == element]
            self.seen[element] = widest(
                (float(chosen.min()), float(chosen.max())), self.seen.get(element)
            )
        excess = np.maximum(self.low - charges, charges - self.high)
        k = int(np.argmax(np.nan_to_num(excess, nan=np.inf)))
        if not self.outside and not excess[k] <= 0.0:
            limits = f"outside {self.low[k]:+.2f} … {self.high[k]:+.2f} e"
            self.outside = f"{self.symbols[k]}{k} {charges[k]:+.2f} e, {limits}"


def widest(first: tuple[float, float], second: tuple[float, float] | None) -> tuple[float, float]:
    """Smallest range that contains two ranges, the second of which may be None."""
    if second is None:
        return first
    return min(first[0], second[0]), max(first[1], second[1])
