"""Total charges: what structures tell, what models saw, what is assumed."""

from __future__ import annotations

import warnings

import pytest
from ase import Atoms

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.total_charge import (
    assume_neutral,
    charges_entry,
    check_trained,
    told_charge,
    total_charge_of,
    trained_charges,
)


@pytest.fixture
def quiet():
    """Make warnings of ours errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        yield


@pytest.mark.usefixtures("quiet")
def test_names_in_their_order():
    info = {"REF_total_charge": 3, "charge": 2, "total_charge": 1}
    for key, expected in (("total_charge", 1.0), ("charge", 2.0), ("REF_total_charge", 3.0)):
        assert told_charge(Atoms("H", info=info)) == expected
        del info[key]
    assert told_charge(Atoms("H")) is None
    assert total_charge_of(Atoms("H")) == 0.0


def test_initial_charges_are_taken_if_they_are_whole():
    with pytest.warns(NequIPLRWarning, match=r"-1 e, the sum of the structure's initial charges"):
        assert told_charge(Atoms("OH", charges=[-1.2, 0.2])) == -1.0
    for charges in ([-1.2, 0.5], [0.0, 0.0]):
        assert told_charge(Atoms("OH", charges=charges)) is None
    assert told_charge(Atoms("OH", charges=[1, 0], info={"total_charge": 0})) == 0.0


@pytest.mark.parametrize("value", ["one", float("nan"), [1, 2]])
def test_what_is_no_charge(value):
    with pytest.raises(InputError, match="expected one finite number"):
        told_charge(Atoms("H", info={"charge": value}))


def test_what_a_model_remembers():
    metadata = charges_entry([1.0, 0, 0.0, 1])
    assert trained_charges(metadata) == (0.0, 1.0)
    for unknown in ({}, {"total_charges": "?"}, {"total_charges": "3"}):
        assert trained_charges(unknown) is None


def test_charges_that_a_model_never_saw():
    metadata = charges_entry([0.0, 1.0])
    with pytest.warns(NequIPLRWarning, match=r"-1 e, but the model was trained on .* 0, 1 e"):
        check_trained(metadata, -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        check_trained(metadata, 1.0)
        check_trained({}, 5.0)


def test_nothing_is_assumed_in_silence():
    with pytest.warns(NequIPLRWarning, match="0 is assumed, because FILE does not tell"):
        assert assume_neutral({}, "FILE does not tell") == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        assert assume_neutral(charges_entry([0.0]), "FILE does not tell") == 0.0


def test_calculators_tell_once(make_model, molecule):
    molecule.calc = NequIPLRCalculator(make_model())
    with pytest.warns(NequIPLRWarning, match="0 is assumed"):
        molecule.get_potential_energy()
    molecule.rattle(0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        molecule.get_potential_energy()
        molecule.info["total_charge"] = 0
        molecule.get_potential_energy()
