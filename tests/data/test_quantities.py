"""The table of quantities against the structures and the keys that are made from it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.keys import DataKeys
from openmm_nequiplr.data.quantities import LABELS, NAMED, OF_CHARGES
from openmm_nequiplr.errors import InputError

ATOMS = {"symbols": ("H", "O"), "positions": np.zeros((2, 3)), "cell": 9 * np.eye(3), "pbc": True}
SHAPED = [n for n, each in NAMED.items() if each.per_atom or each.shape]


def test_every_quantity_is_a_field_and_has_a_key():
    fields = {each.name for each in dataclasses.fields(Structure)}
    assert set(NAMED) == {each.name for each in dataclasses.fields(DataKeys)}
    assert set(OF_CHARGES) < set(LABELS) < set(NAMED) < fields


def test_names_are_of_one_quantity():
    """But ``charge``, which is a column of charges or, in the comment line, the total charge."""
    for per_atom in (False, True):
        names = [key for each in NAMED.values() if each.per_atom == per_atom for key in each.keys]
        assert len(names) == len(set(names))
    assert all(each.keys[0] == f"REF_{name}" for name, each in LABELS.items())


@pytest.mark.parametrize("name", [name for name in SHAPED if name != "charge_groups"])
def test_shapes_are_those_of_structures(name):
    shape = (2,) * NAMED[name].per_atom + NAMED[name].shape
    given = {name: np.ones(shape)}
    if name.startswith("outside_"):  # both or none
        given = {n: np.ones((2, *NAMED[n].shape)) for n in ("outside_potential", "outside_field")}
    found = getattr(Structure(**ATOMS, **given), name)
    assert (found.shape, found.dtype) == (shape, np.float64)
    with pytest.raises(InputError, match=f"{name}: expected shape .*got .*shape"):
        Structure(**ATOMS, **(given | {name: np.ones((*shape, 1))}))
