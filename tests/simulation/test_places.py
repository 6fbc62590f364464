"""Which places count as the same, and what is watched there."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.model import GroupCharge, Observation
from openmm_nequiplr.simulation.computation_settings import Conditions
from openmm_nequiplr.simulation.places import Place, Watched

POINTS = np.arange(6.0).reshape(2, 3)
CELL = 10.0 * np.eye(3)


@pytest.mark.parametrize(
    ("other", "same", "same_frame"),
    [
        (Place(POINTS.copy(), CELL.copy(), Conditions()), True, True),
        (Place(POINTS + 1e-7, CELL, Conditions()), False, True),
        (Place(POINTS + CELL[1], CELL, Conditions()), False, True),
        (Place(POINTS + 0.1, CELL, Conditions()), False, False),
        (Place(POINTS, None, Conditions()), False, False),
        (Place(POINTS, 1.01 * CELL, Conditions()), False, False),
        (Place(POINTS, CELL, Conditions(field=(0.0, 0.0, 1.0))), False, False),
        (Place(POINTS, CELL, Conditions(total_charge=1.0)), False, False),
        (Place(POINTS, CELL, Conditions(coulomb_scale=0.5)), False, False),
    ],
)
def test_places(other, same, same_frame):
    place = Place(POINTS, CELL, Conditions())
    assert place.same(other) is same
    assert place.same_frame(other) is same_frame


def test_an_image_without_a_cell_is_another_place():
    assert not Place(POINTS, None, Conditions()).same_frame(
        Place(POINTS + CELL[1], None, Conditions())
    )


def test_a_copy_keeps_its_arrays():
    points = POINTS.copy()
    kept = Place(points, CELL, Conditions()).copied()
    points += 1.0
    np.testing.assert_array_equal(kept.positions, POINTS)


def test_what_nobody_asks_for_is_forgotten():
    watched, (one, other) = Watched(3), (GroupCharge((0,)), GroupCharge((1,)))
    watched.ask(one)
    watched.ask(other)
    for step in range(6):
        watched.ask(one)
        assert watched.current() == ((one, other) if step <= 3 else (one,))
        place = Place(POINTS + step, None, Conditions())
        watched.keep(place, {one: Observation(float(step), np.zeros((2, 3)))})
        assert watched.find(place, one).value == step
        assert watched.find(place, other) is None
    assert watched.find(Place(POINTS, None, Conditions()), one) is None  # too long ago
