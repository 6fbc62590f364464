"""What counts as unstable: distances, charges, temperatures, falls of the energy."""

from __future__ import annotations

import json

import numpy as np
import pytest

from openmm_nequiplr.errors import ModelFileError
from openmm_nequiplr.simulation.limits import ChargeLimits, HalfBonds, deepest_fall, hottest


def test_no_range_no_limits():
    assert ChargeLimits.of({}, ["H"]) is None


def test_charges_may_leave_the_trained_range_by_a_margin():
    metadata = {"charge_range": json.dumps({"H": [0.0, 0.4], "O": [-0.8, -0.6]})}
    limits = ChargeLimits.of(metadata, ["O", "H", "Na"])
    # half the width and 0.2 e: H from -0.4 to 0.8, O from -1.1 to -0.3, Na anything
    for sound in ([-0.7, 0.2, 9.0], [-1.09, 0.79, -9.0], [-0.31, -0.39, 0.0]):
        assert limits.trouble(np.array(sound)) is None
    text = limits.trouble(np.array([-0.7, 0.81, 0.0]))
    assert "atom 1 (H) has a charge of 0.81 e, far outside the 0 to 0.4 e" in text
    text = limits.trouble(np.array([-1.2, -2.0, 0.0]), indices=[7, 8, 9])
    assert "atom 8 (H) has a charge of -2 e (and 1 more atoms)" in text


@pytest.mark.parametrize(
    "text", ["", "[]", "[1]", "nonsense", '{"H": 1}', '{"H": [1, 0]}', '{"H": [0, NaN]}', "7"]
)
def test_a_damaged_range_is_an_error(text):
    if text == "[]":  # an empty list of pairs is an empty table
        assert ChargeLimits.of({"charge_range": text}, ["H"]).trouble(np.array([5.0])) is None
        return
    with pytest.raises(ModelFileError, match="charge_range: expected JSON"):
        ChargeLimits.of({"charge_range": text}, ["H"])


def test_atoms_nearer_than_half_a_bond():
    bonds = HalfBonds(["C", "C", "H"])  # radii 0.76, 0.76, 0.31
    sound = np.array([[0.0, 0, 0], [0.8, 0, 0], [0.0, 0.6, 0]])
    assert bonds.trouble(sound, None) is None
    close = np.array([[0.0, 0, 0], [0.7, 0, 0], [0.0, 0.6, 0]])
    text = "atoms 0 (C) and 1 (C) are 0.70 Å apart, nearer than half a bond (0.76 Å)"
    assert bonds.trouble(close, None) == text
    assert "atoms 4 (C) and 5 (C)" in bonds.trouble(close, None, indices=[4, 5, 6])
    assert HalfBonds(["H"]).trouble(np.zeros((1, 3)), None) is None


def test_images_count_as_neighbours():
    bonds = HalfBonds(["Na", "Cl"])  # radii 1.66 and 1.02
    positions = np.array([[0.1, 0, 0], [5.5, 0, 0]])
    assert bonds.trouble(positions, None) is None
    assert bonds.trouble(positions, np.eye(3) * 9.0) is None
    assert "0.60 Å apart" in bonds.trouble(positions, np.eye(3) * 6.0)


def test_small_systems_may_fluctuate_more():
    assert hottest(300.0, 3) > hottest(300.0, 30) > hottest(300.0, 3000) == 2 * 300.0 + 500.0
    assert hottest(300.0, 3000, strained=False) == 600.0
    assert 3000.0 < hottest(300.0, 3, strained=False) < 4000.0
    draws = np.random.default_rng(1).chisquare(9, size=200000) / 9 * 300.0
    assert draws.max() < hottest(300.0, 9)


def test_minimisations_may_fall_farther():
    assert deepest_fall(10, minimisation=True) > deepest_fall(10) > 10.0
