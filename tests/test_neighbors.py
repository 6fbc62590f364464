"""Neighbour lists against ASE's, for cells of any shape and size."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list

from openmm_nequiplr.errors import BoxError
from openmm_nequiplr.neighbors import cell_heights, neighbor_list

CELLS = {
    "cubic": np.diag([9.0, 9.0, 9.0]),
    "tiny": np.diag([3.0, 3.0, 3.0]),
    "skewed": np.array([[3.0, 0.0, 0.0], [1.5, 4.0, 0.0], [-1.0, 2.0, 5.0]]),
    "left-handed": np.array([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 1.0, 8.0]]),
    "needle": np.diag([2.0, 9.0, 30.0]),
}


@pytest.mark.parametrize("name", [*CELLS, "free"])
def test_same_pairs_as_ase(rng, name):
    periodic = name != "free"
    cell = CELLS.get(name, np.zeros((3, 3)))
    positions = 6.0 * rng.normal(size=(7, 3))  # outside the cell too
    index, shift = neighbor_list(positions, cell, periodic, 6.5)
    i, j, images = ase_neighbor_list("ijS", Atoms("H7", positions, cell=cell, pbc=periodic), 6.5)
    ours = sorted(zip(*index.tolist(), *shift.int().T.tolist(), strict=True))
    theirs = sorted(zip(i.tolist(), j.tolist(), *images.T.tolist(), strict=True))
    assert ours == theirs
    assert len(ours) > 0
    vectors = positions[index[1]] - positions[index[0]] + shift.numpy() @ cell
    assert np.linalg.norm(vectors, axis=1).max() < 6.5


def test_sorted_by_centre_and_empty_when_alone(rng):
    index, _ = neighbor_list(rng.normal(size=(30, 3)) * 4, np.zeros((3, 3)), False, 4.0)
    assert (index[0].diff() >= 0).all()
    index, shift = neighbor_list(np.zeros((1, 3)), np.zeros((3, 3)), False, 4.0)
    assert index.shape == (2, 0)
    assert shift.shape == (0, 3)


def test_cell_heights():
    assert cell_heights(np.diag([2.0, 3.0, 4.0])) == pytest.approx([2.0, 3.0, 4.0])
    sheared = np.array([[2.0, 0.0, 0.0], [7.0, 3.0, 0.0], [0.0, 0.0, 4.0]])
    assert cell_heights(sheared)[1] == pytest.approx(3.0)
    with pytest.raises(BoxError, match="three independent vectors"):
        cell_heights(np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]]))
