"""Units and names of reported errors."""

from __future__ import annotations

from typing import NamedTuple


class Reported(NamedTuple):
    """How the errors of a quantity are shown, in thousandths of eV, Å and e units."""

    title: str
    unit: str
    symbol: str


#: The quantities, in the order in which they are reported.
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
    """From eV, e units to the units of errors."""
    return 1000.0 * value
