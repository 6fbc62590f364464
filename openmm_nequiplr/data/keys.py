"""Names under which a data file keeps its labels."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import InputError, describe

#: Names tried, in this order, for every quantity that the user does not name.
DEFAULT_KEYS: dict[str, tuple[str, ...]] = {
    "energy": ("REF_energy", "energy"),
    "forces": ("REF_forces", "forces", "force"),
    "charges": ("REF_charges", "charges", "REF_charge", "charge"),
    "dipole": ("REF_dipole", "dipole"),
    "stress": ("REF_stress", "stress"),
    "total_charge": ("total_charge", "charge", "REF_total_charge"),
    "electric_field": ("electric_field", "REF_electric_field"),
    "weight": ("config_weight",),
}


@dataclass(frozen=True)
class DataKeys:
    """Key names of an extended XYZ file.

    A field left at ``None`` is searched under the names of `DEFAULT_KEYS` (``REF_*`` first).
    A field that is named must be there in at least one frame, or reading fails.

    Parameters
    ----------
    energy : str, optional
        Key of the energy, one value per structure.
    forces : str, optional
        Column of the forces, one vector per atom.
    charges : str, optional
        Column of the charges, one value per atom.
    dipole : str, optional
        Key of the dipole, one vector per structure.
    stress : str, optional
        Key of the stress, six or nine values per structure.
    total_charge : str, optional
        Key of the total charge, one value per structure.
    electric_field : str, optional
        Key of the uniform field outside, V/Å, one vector per structure.
    weight : str, optional
        Key of the weight of a structure in the loss.
    """

    energy: str | None = None
    forces: str | None = None
    charges: str | None = None
    dipole: str | None = None
    stress: str | None = None
    total_charge: str | None = None
    electric_field: str | None = None
    weight: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(describe(f"keys.{field.name}", value, "the name of a key"))

    def candidates(self, quantity: str) -> tuple[str, ...]:
        """Names to try for `quantity`, best first."""
        named = getattr(self, quantity)
        return (named,) if named is not None else DEFAULT_KEYS[quantity]

    def named(self) -> dict[str, str]:
        """The quantities that the user named: quantity to key."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
