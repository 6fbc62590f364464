"""Conditions on charges: as ASE structures specify them, as groups, and their errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms

from openmm_nequiplr.conditions import (
    UNCONDITIONED,
    ChargeConditions,
    check_voltage,
    flat,
    plain_electrodes,
    read_electrodes,
)
from openmm_nequiplr.errors import InputError

GROUPS = ChargeConditions([0.0, 0.0, 0.1], [0, 0, 1, 1, 2], [1.0, -1.0, 0.5])
PLATES = ChargeConditions(electrodes=((0, 1), (4,)), electrode_voltage=2.0)


@pytest.mark.parametrize("conditions", [UNCONDITIONED, GROUPS, PLATES])
def test_structures_tell_what_they_were_told(conditions):
    atoms = Atoms("H5")
    conditions.tell(atoms)
    found = ChargeConditions.told_by(atoms)
    for name, value in vars(conditions).items():
        np.testing.assert_equal(getattr(found, name), value, err_msg=name)
    assert found.same(found)
    assert not found.same(dataclasses.replace(found, electric_field=np.ones(3)))


def test_a_voltage_without_electrodes_is_no_condition():
    atoms = Atoms("H2", info={"electrode_voltage": 3.0})
    atoms.arrays["electrode"] = np.zeros(2, dtype=int)
    assert ChargeConditions.told_by(atoms).same(UNCONDITIONED)
    atoms.arrays["electrode"] = np.array([3, 1])
    with pytest.raises(InputError, match="column 'electrode': expected 1, 2, and 0 elsewhere"):
        ChargeConditions.told_by(atoms)


def test_a_single_group_is_the_total_charge():
    held = GROUPS.held(5, 0.5)
    np.testing.assert_array_equal(held.groups, [0, 0, 1, 1, 2])
    np.testing.assert_array_equal(held.charges, [1.0, -1.0, 0.5])
    assert UNCONDITIONED.held(5, 0.5) is None
    assert ChargeConditions(charge_groups=[1] * 5, group_charges=[0.5]).held(5, 0.5) is None
    with pytest.raises(InputError, match="group_charges"):
        GROUPS.held(5, 0.0)


def test_groups_with_electrodes_are_one():
    """The charge of both electrodes together is that of all groups that they touch."""
    held = dataclasses.replace(GROUPS, electrodes=([1], [4])).held(5, 0.5)
    np.testing.assert_array_equal(held.groups, [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(held.charges, [1.5, -1.0])
    np.testing.assert_array_equal(read_electrodes(5, ([1], [4])), [0, 1, 0, 0, -1])
    assert read_electrodes(5, None) is None


@pytest.mark.parametrize("wrong", ["01", [[0]], [[0], [1], [2]], [[0.5], [1]], 3, [0, 1]])
def test_electrodes_are_two_lists(wrong):
    with pytest.raises(InputError, match="electrodes: expected two of them"):
        plain_electrodes(wrong)
    assert plain_electrodes((np.array([1]), "metal")) == ((1,), "metal")  # names of residues


@pytest.mark.parametrize("wrong", [([0], [0]), ([0], [5]), ([], [1])])
def test_electrodes_are_disjoint_and_of_atoms(wrong):
    with pytest.raises(InputError, match="electrodes"):
        read_electrodes(5, wrong)


def test_voltages():
    assert check_voltage(-2, PLATES.electrodes) == -2.0
    assert check_voltage(0, None) == 0.0
    for wrong in ("1", np.nan, 101.0, True):
        with pytest.raises(InputError, match="electrode_voltage: .* at most 100 V in size"):
            check_voltage(wrong, PLATES.electrodes)
    with pytest.raises(InputError, match="electrode_voltage: expected 0 without electrodes"):
        check_voltage(1.0, None)


def test_nine_charges_come_as_a_matrix():
    """ASE reads nine values as a transposed matrix."""
    values = np.arange(9.0)
    np.testing.assert_array_equal(flat(values.reshape(3, 3).T), values)
    assert flat(None) is None
