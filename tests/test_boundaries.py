"""Boundary conditions, cells of slabs, and slabs in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.boundaries import BULK, FREE, SLAB, as_pbc, check_slab, tilted, whole_slab
from openmm_nequiplr.errors import BoxError, InputError

CELL = np.array([[5.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.0, 0.0, 20.0]])


def test_three_kinds_are_known():
    assert as_pbc(False) == as_pbc([False] * 3) == FREE
    assert as_pbc(True) == as_pbc(np.ones(3, dtype=bool)) == BULK
    assert as_pbc((True, True, False)) == SLAB
    assert [bool(pbc) for pbc in (FREE, BULK, SLAB)] == [False, True, True]


@pytest.mark.parametrize("pbc", [(True, False, False), (True, False, True), (False, False, True)])
def test_others_are_refused(pbc):
    with pytest.raises(InputError, match="pbc: expected periodic in all three directions, in none"):
        as_pbc(pbc)


@pytest.mark.parametrize("pbc", ["TTF", (True, True), 2, None])
def test_what_is_no_boolean_is_refused(pbc):
    with pytest.raises(InputError, match="pbc"):
        as_pbc(pbc)


def test_cells_of_slabs(rng):
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for cell in (CELL, CELL @ turn, -CELL):
        check_slab(cell)
    leaning = CELL + np.array([[0, 0, 0], [0, 0, 0], [1e-3, 0, 0]])
    assert tilted(torch.tensor(leaning))
    with pytest.raises(BoxError, match="perpendicular"):
        check_slab(leaning)
    with pytest.raises(BoxError, match="vacuum"):
        check_slab(CELL * np.array([[1.0], [1.0], [0.0]]))


@pytest.mark.parametrize("turned", [False, True])
def test_a_slab_is_cut_in_its_vacuum(rng, turned):
    """Whatever the images: distances along the normal are those of the slab in one piece."""
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] if turned else np.eye(3)
    points, cell = rng.random((9, 3)) @ np.diag([5.0, 6.0, 7.0]) @ turn, CELL @ turn
    for shift in np.linspace(-25.0, 25.0, 11):
        moved = points + shift * turn[2]
        images = rng.integers(-2, 3, 9)
        images[0] = 0
        given = torch.tensor(moved + images[:, None] * cell[2])
        whole, gap = whole_slab(given, torch.tensor(cell))
        np.testing.assert_allclose(whole.numpy(), moved, atol=1e-12)
        along = points @ turn[2]
        assert gap == pytest.approx(1.0 - np.ptp(along) / 20.0)


def test_a_whole_slab_stays_as_it_is(rng):
    points = torch.tensor(rng.random((9, 3)) @ np.diag([5.0, 6.0, 7.0]) + 1.0)
    assert torch.equal(whole_slab(points, torch.tensor(CELL))[0], points)
    assert whole_slab(points[:1], torch.tensor(CELL))[1] == 1.0
