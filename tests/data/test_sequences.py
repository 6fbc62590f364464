"""Some structures of a sequence, and several sequences as one; lists stay lists."""

from __future__ import annotations

import pytest

from openmm_nequiplr.data.sequences import Chain, Selection, chained, chosen, selected
from openmm_nequiplr.data.structure import Structure

LISTED = [Structure(("O",), [[float(number), 0.0, 0.0]], energy=number) for number in range(6)]


def energies(structures):
    return [structure.energy for structure in structures]


@pytest.fixture
def lazy():
    return Selection(LISTED)


def test_some_of_them(lazy):
    assert isinstance(chosen(lazy, [4, 1]), Selection)
    assert energies(chosen(lazy, [4, 1])) == energies(chosen(LISTED, [4, 1])) == [4.0, 1.0]
    assert isinstance(chosen(LISTED, [4, 1]), list)
    assert energies(chosen(lazy, [4, 1, 2])[1:]) == [1.0, 2.0]
    assert chosen(lazy, [4, 1])[-1] is LISTED[1]


def test_all_of_several(lazy):
    both = chained([lazy, [], LISTED[:2]])
    assert isinstance(both, Chain)
    assert energies(both) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0]
    assert len(both) == 8
    assert both[-1] is LISTED[1]
    assert energies(both[4:7]) == [4.0, 5.0, 0.0]
    with pytest.raises(IndexError):
        both[8]
    assert chained([LISTED[:1], LISTED[3:4]]) == [LISTED[0], LISTED[3]]
    assert not chained([[], []])


def test_changed_when_they_are_asked_for(lazy):
    def forget(structure):
        return structure.without("energy")

    assert energies(selected(lazy, forget)) == energies(selected(LISTED, forget)) == 6 * [None]
    assert energies(chosen(selected(lazy, forget), [2])[:1]) == [None]
    assert LISTED[0].energy == 0.0
