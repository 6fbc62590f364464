"""Units of data files and their conversion to Å and eV."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ..errors import InputError, describe, suggestion
from ..units import BOHR, EV_TO_KJ_PER_MOL, HARTREE
from .structure import Structure

#: Å in a unit of length.
LENGTHS: dict[str, float] = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0, "pm": 0.01}
#: eV in a unit of energy.
ENERGIES: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE,
    "rydberg": HARTREE / 2.0,
    "kcal/mol": 4.184 / EV_TO_KJ_PER_MOL,
    "kJ/mol": 1.0 / EV_TO_KJ_PER_MOL,
}
_OTHER_NAMES = {
    "å": "angstrom",
    "ang": "angstrom",
    "ha": "hartree",
    "ry": "rydberg",
}


@dataclass(frozen=True)
class DataUnits:
    """Units of a data file.

    Forces are in energy per length, stresses in energy per cubic length, dipoles in e times length,
    charges in e, potentials in energy per e, fields in energy per length and e, polarisabilities in
    e² length² per energy. The defaults are the units of the format: Å and eV in extended XYZ, Bohr
    and Hartree in RuNNer files.

    Parameters
    ----------
    length : {"angstrom", "bohr", "nm", "pm"}, optional
        Unit of length.
    energy : {"eV", "meV", "hartree", "rydberg", "kcal/mol", "kJ/mol"}, optional
        Unit of energy.

    Raises
    ------
    InputError
        If a unit is unknown.
    """

    length: str | None = None
    energy: str | None = None

    def __post_init__(self) -> None:
        for field, known in zip(fields(self), (LENGTHS, ENERGIES), strict=True):
            given = getattr(self, field.name)
            if given is not None:
                by_lower = {name.lower(): name for name in known} | _OTHER_NAMES
                name = by_lower.get(str(given).strip().lower())
                if name not in known:
                    expected = "one of " + ", ".join(known)
                    message = describe(f"units.{field.name}", given, expected)
                    raise InputError(message + suggestion(given, known))
                object.__setattr__(self, field.name, name)

    def completed(self, length: str, energy: str) -> DataUnits:
        """Replace missing units by those of a format.

        Raises
        ------
        InputError
            If only one unit is given and it differs from the unit of the format.
        """
        own = DataUnits(length, energy)
        for name, other in (("length", "energy"), ("energy", "length")):
            given = getattr(self, name)
            if getattr(self, other) is None and given not in (None, getattr(own, name)):
                expected = f"a unit, as units.{name} is not the format's own"
                raise InputError(describe(f"units.{other}", None, expected))
        return DataUnits(self.length or length, self.energy or energy)

    def to_angstrom_and_ev(self, structure: Structure) -> Structure:
        """Convert a structure from these units to Å and eV.

        Raises
        ------
        InputError
            If a unit is missing.
        """
        if self.length is None or self.energy is None:
            raise InputError(describe("units", self, "a length and an energy"))
        length, energy = LENGTHS[self.length], ENERGIES[self.energy]
        factors = {
            "positions": length,
            "cell": length,
            "energy": energy,
            "forces": energy / length,
            "dipole": length,
            "stress": energy / length**3,
            "electric_field": energy / length,
            "outside_potential": energy,
            "outside_field": energy / length,
            "polarizability": length**2 / energy,
        }
        if all(factor == 1.0 for factor in factors.values()):
            return structure
        values = {name: getattr(structure, name) for name in factors}
        return replace(structure, **{n: v * factors[n] for n, v in values.items() if v is not None})
