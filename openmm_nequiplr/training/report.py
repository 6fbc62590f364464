"""Units and layout of reported errors."""

from __future__ import annotations

#: Reported errors are a thousandth of eV, Å and e units.
UNITS = {
    "energy_per_atom": "meV/atom",
    "forces": "meV/Å",
    "charges": "me",
    "dipole": "me Å",
    "stress": "meV/Å³",
    "born_charges": "me",
    "polarizability": "me Å²/V",
}
LABELS = {
    "energy_per_atom": "energy per atom",
    "forces": "forces",
    "charges": "charges",
    "dipole": "dipole",
    "stress": "stress",
    "born_charges": "Born charges",
    "polarizability": "polarisability",
}


def scaled(value: float) -> float:
    """From eV, e units to the units of `UNITS`."""
    return 1000.0 * value
