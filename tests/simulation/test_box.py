"""Boxes in OpenMM's form describe the same lattice."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from openmm_nequiplr.simulation.box import compact_box, reduce_box

HEXAGONAL = np.array([[4.0, 0.0, 0.0], [-2.0, 2.0 * np.sqrt(3.0), 0.0], [0.0, 0.0, 6.0]])


def random_cells() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.normal(size=(3, 3)) * rng.uniform(1.0, 9.0, (3, 1)) for _ in range(20)]


def assert_same_lattice(vectors: np.ndarray, cell: np.ndarray, rotation: np.ndarray) -> None:
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    change = (vectors @ rotation) @ np.linalg.inv(cell)  # old vectors in terms of new ones
    np.testing.assert_allclose(change, np.round(change), atol=1e-7)
    assert abs(np.linalg.det(np.round(change))) == pytest.approx(1.0)


@pytest.mark.parametrize("reduce", [reduce_box, compact_box])
@pytest.mark.parametrize("cell", [*random_cells(), HEXAGONAL, -HEXAGONAL], ids=range(22))
def test_openmm_accepts_the_box_and_the_lattice_is_the_same(cell, reduce):
    box = reduce(cell)
    assert_same_lattice(box.vectors, cell, box.rotation)
    openmm.System().setDefaultPeriodicBoxVectors(*box.vectors)  # raises if it is not reduced


def test_a_reduced_box_is_left_alone():
    cell = np.array([[5.0, 0.0, 0.0], [1.0, 6.0, 0.0], [-2.0, 2.5, 7.0]])
    for reduced in (reduce_box(cell), compact_box(cell)):
        np.testing.assert_array_equal(reduced.vectors, cell)
        np.testing.assert_array_equal(reduced.rotation, np.eye(3))


def test_a_skewed_description_of_a_cube_becomes_a_cube():
    cell = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [3.0, 4.0, 1.0]]) * 8.0
    assert compact_box(cell).smallest_width == pytest.approx(8.0)
