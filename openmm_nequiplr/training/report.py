"""Names and units of reported errors."""

from __future__ import annotations

from typing import NamedTuple


class Reported(NamedTuple):
    """Name and unit of a reported error, in thousandths of eV, Å and e units."""

    title: str
    unit: str
    symbol: str


#: Quantities in the order in which they are reported.
REPORTED = {
    "energy_per_atom": Reported("energy per atom", "meV/atom", "E"),
    "forces": Reported("forces", "meV/Å", "F"),
    "charges": Reported("charges", "me", "q"),
    "dipole": Reported("dipole", "me Å", "μ"),
    "stress": Reported("stress", "meV/Å³", "σ"),
    "born_charges": Reported("Born charges", "me", "Z*"),
    "polarizability": Reported("polarisability", "me Å²/V", "α"),
}


def scaled(value: float) -> float:
    """Convert an error from units of eV, Å and e to the reported unit."""
    return 1000.0 * value
