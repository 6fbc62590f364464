"""Names of the labels in a data file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from ..errors import InputError, describe
from .quantities import NAMED

#: Default names of each quantity, in the order in which they are tried.
DEFAULT_KEYS = {name: quantity.keys for name, quantity in NAMED.items()}


@dataclass(frozen=True)
class DataKeys:
    """Key names of an extended XYZ file.

    A quantity left at ``None`` is searched under the names in `DEFAULT_KEYS` (``REF_*`` first).
    A name given here must be present in at least one frame; otherwise reading fails.

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
    born_charges : str, optional
        Column of the Born effective charges, e, nine values per atom: dμ_x/dx, dμ_x/dy, dμ_x/dz,
        dμ_y/dx, …
    polarizability : str, optional
        Key of the polarisability, e Å²/V (an Å³ is 0.0694 of these), six (xx, yy, zz, yz, xz, xy)
        or nine values per structure.
    total_charge : str, optional
        Key of the total charge, one value per structure.
    electric_field : str, optional
        Key of the uniform external field, V/Å, one vector per structure.
    outside_potential : str, optional
        Column of the potential of outside charges, V, one value per atom.
    outside_field : str, optional
        Column of the field of outside charges, V/Å, one vector per atom.
    charge_groups : str, optional
        Column of the labels of charge groups, whose charges are constrained; one integer per atom.
    group_charges : str, optional
        Key of the charges of these groups in the order of their labels, one value per group.
    weight : str, optional
        Key of the weight of a structure in the loss.
    """

    energy: str | None = None
    forces: str | None = None
    charges: str | None = None
    dipole: str | None = None
    stress: str | None = None
    born_charges: str | None = None
    polarizability: str | None = None
    total_charge: str | None = None
    electric_field: str | None = None
    outside_potential: str | None = None
    outside_field: str | None = None
    charge_groups: str | None = None
    group_charges: str | None = None
    weight: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(describe(f"keys.{each.name}", value, "the name of a key"))

    def candidates(self, quantity: str) -> tuple[str, ...]:
        """Names to try for `quantity`, in this order."""
        named = getattr(self, quantity)
        return (named,) if named is not None else DEFAULT_KEYS[quantity]

    def named(self) -> dict[str, str]:
        """Keys given by the user, by quantity."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}


def with_names(keys: DataKeys, names: Mapping[str, str | None]) -> DataKeys:
    """Replace some of the key names.

    Parameters
    ----------
    keys : DataKeys
    names : mapping of str to str
        ``energy_key``, ``forces_key``, …; None leaves a name unchanged.

    Raises
    ------
    TypeError
        If there is no such quantity.
    """
    changes = {}
    for name, value in names.items():
        quantity = name.removesuffix("_key")
        if quantity == name or not hasattr(keys, quantity):
            raise TypeError(f"unexpected keyword argument {name!r}")
        if value is not None:
            changes[quantity] = value
    return replace(keys, **changes)


@dataclass
class FoundKeys:
    """Key names found in extended XYZ files.

    Parameters
    ----------
    used : dict of str to set of str
        Keys from which each quantity was read.
    ignored : set of str
        Keys that look like labels and were not read.
    """

    used: dict[str, set[str]] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
