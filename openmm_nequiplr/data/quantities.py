"""Names in files and shapes of the labels and conditions of a structure."""

from __future__ import annotations

from typing import NamedTuple


class Quantity(NamedTuple):
    """Storage of a quantity in files.

    Parameters
    ----------
    keys : tuple of str
        Default names in files, in order of precedence.
    per_atom : bool
        Whether there is one row for each atom, or one for the structure.
    shape : tuple of int
        Shape of a row.
    """

    keys: tuple[str, ...]
    per_atom: bool = False
    shape: tuple[int, ...] = ()


#: Labels of structures.
LABELS = {
    "energy": Quantity(("REF_energy", "energy")),
    "forces": Quantity(("REF_forces", "forces", "force"), True, (3,)),
    "charges": Quantity(("REF_charges", "charges", "REF_charge", "charge"), True),
    "dipole": Quantity(("REF_dipole", "dipole"), False, (3,)),
    "stress": Quantity(("REF_stress", "stress"), False, (3, 3)),
    "born_charges": Quantity(
        (
            *("REF_born_charges", "born_charges"),
            *("REF_born_effective_charges", "born_effective_charges"),
        ),
        True,
        (3, 3),
    ),
    "polarizability": Quantity(("REF_polarizability", "polarizability"), False, (3, 3)),
}
#: Labels, conditions and weights that files may contain.
NAMED = {
    **LABELS,
    "total_charge": Quantity(("total_charge", "charge", "REF_total_charge")),
    "electric_field": Quantity(("electric_field", "REF_electric_field"), False, (3,)),
    "outside_potential": Quantity(("outside_potential",), True),
    "outside_field": Quantity(("outside_field",), True, (3,)),
    "charge_groups": Quantity(("charge_group", "charge_groups"), True),
    "group_charges": Quantity(("group_charges",)),
    "weight": Quantity(("config_weight",)),
}
#: Labels that a model without equilibration does not predict.
OF_CHARGES = ("charges", "dipole", "born_charges", "polarizability")
