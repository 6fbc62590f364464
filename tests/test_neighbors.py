"""Neighbour lists against ASE's, for cells of any shape and size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list

from openmm_nequiplr import neighbors
from openmm_nequiplr.errors import BoxError, InputError
from openmm_nequiplr.neighbors import cell_heights, neighbor_list, pairs_between, two_way

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


@pytest.mark.parametrize("cell", [np.diag([11.0] * 3), [[12.0, 0, 0], [3, 11, 0], [-2, 2.5, 13]]])
def test_same_pairs_as_mlipops(rng, cell):
    mlipops = pytest.importorskip("mlipops")
    cell = np.array(cell)
    points = rng.uniform(-1.5, 2.5, size=(60, 3)) @ cell
    search = mlipops.NeighborList(4.0, include_symmetric=True)
    pairs = search(torch.tensor(points), torch.tensor(cell))
    index, _ = neighbor_list(points, cell, True, 4.0)
    assert sorted(map(tuple, pairs.tolist())) == list(zip(*index.tolist(), strict=True))


def brute_force(positions, cell, cutoff, reach):
    """Centre, neighbour and image of every pair, over all images up to ``reach`` along an axis."""
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = positions[None] - positions[:, None] + np.array(shift) @ cell
        near = np.linalg.norm(vectors, axis=2) < cutoff
        if not any(shift):
            np.fill_diagonal(near, False)
        found += [(*pair, *shift) for pair in np.argwhere(near).tolist()]
    return sorted(found)


def as_rows(index, shift):
    return sorted(zip(*index.tolist(), *shift.int().T.tolist(), strict=True))


@pytest.mark.parametrize(
    "apart",
    [[2e3, 2e3, 0.0], [1e6, 0.0, 0.0], [1e6, 1e6, 1e6], [1e9, -1e9, 0.0], [0.0, 0.0, 1e9]],
)
def test_fragments_anywhere(rng, apart):
    fragment = rng.uniform(0.0, 4.0, (6, 3)) * [1.0, 1.0, 0.0]  # flat
    positions = np.concatenate((fragment, fragment[:3] + apart, fragment[:4] - apart))
    for full in (True, False):
        index, shift = neighbor_list(positions, np.zeros((3, 3)), False, 3.0, full)
        expected = brute_force(positions, np.zeros((3, 3)), 3.0, (0, 0, 0))
        expected = [row for row in expected if full or row[0] < row[1]]
        assert as_rows(index, shift) == expected


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("search", ["bins", "tree"])
def test_both_searches_find_the_same(rng, monkeypatch, search, full):
    monkeypatch.setattr(neighbors, "_MOST_BINS", 0.0 if search == "tree" else 1e5)
    for cell in CELLS.values():
        positions = rng.uniform(-1.0, 2.0, (5, 3)) @ cell
        rows = brute_force(positions, cell, 4.5, (8, 8, 8))
        if not full:
            rows = [r for r in rows if r[0] < r[1] or (r[0] == r[1] and r[2:] > (0, 0, 0))]
        assert as_rows(*neighbor_list(positions, cell, True, 4.5, full)) == rows


@pytest.mark.parametrize("edges", [(1e6, 3.0, 3.5), (1e6, 1e6, 3.0), (1e6, 1e6, 1e6)])
def test_cells_that_are_long_or_flat_or_huge(rng, edges):
    positions = rng.uniform(0.0, 4.0, (6, 3))
    cell = np.diag(edges)
    reach = [0 if edge > 100.0 else 3 for edge in edges]
    assert as_rows(*neighbor_list(positions, cell, True, 4.5)) == brute_force(
        positions, cell, 4.5, reach
    )


def test_atoms_far_outside_and_cells_in_another_basis(rng):
    cell = CELLS["skewed"]
    inside = rng.uniform(size=(7, 3)) @ cell
    cells = rng.integers(-100_000, 100_000, (7, 3))
    skew = np.array([[1, 0, 0], [3, 1, 0], [-2, 5, 1]])
    index, shift = neighbor_list(inside, cell, True, 5.0)
    moved = (cells[index[0]] - cells[index[1]]) + shift.numpy()
    far = inside + cells @ cell
    other_index, other_shift = neighbor_list(far, skew @ cell, True, 5.0)
    back = other_shift.numpy() @ skew
    assert as_rows(index, torch.from_numpy(moved)) == as_rows(other_index, torch.from_numpy(back))
    assert (other_index[0].diff() >= 0).all()


@pytest.mark.parametrize(
    ("count", "edge", "cutoff"), [(1, 0.5, 5.0), (50, 1.0, 4.0), (1, 0.02, 6.0)]
)
def test_more_neighbours_than_a_material_has_are_refused(rng, count, edge, cutoff):
    positions = rng.uniform(0.0, edge, (count, 3))
    with pytest.raises(InputError, match=r"positions: expected room .* about \d+ neighbours"):
        neighbor_list(positions, edge * np.eye(3), True, cutoff)


def test_sorted_by_centre_and_empty_when_alone(rng):
    index, _ = neighbor_list(rng.normal(size=(30, 3)) * 4, np.zeros((3, 3)), False, 4.0)
    assert (index[0].diff() >= 0).all()
    index, shift = neighbor_list(np.zeros((1, 3)), np.zeros((3, 3)), False, 4.0)
    assert index.shape == (2, 0)
    assert shift.shape == (0, 3)


def test_every_pair_and_then_all_of_them_reversed(rng):
    """Also pairs of an atom and its own images."""
    points, cell = rng.random((5, 3)) * 3.0, np.diag([3.0, 3.2, 9.0])
    ends, shift = neighbor_list(points, cell, True, 3.5)
    paired, images = two_way(ends, shift)
    half = paired.shape[1] // 2
    assert bool((ends[0] == ends[1]).any())
    assert torch.equal(paired[:, :half], paired[:, half:].flip(0))
    assert torch.equal(images[:half], -images[half:])

    def rows(index, translations):
        return sorted(map(tuple, np.hstack((index.numpy().T, translations.numpy() + 0.0)).tolist()))

    assert rows(paired, images) == rows(ends, shift)


def test_cell_heights():
    assert cell_heights(np.diag([2.0, 3.0, 4.0])) == pytest.approx([2.0, 3.0, 4.0])
    sheared = np.array([[2.0, 0.0, 0.0], [7.0, 3.0, 0.0], [0.0, 0.0, 4.0]])
    assert cell_heights(sheared)[1] == pytest.approx(3.0)
    with pytest.raises(BoxError, match="three independent vectors"):
        cell_heights(np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]]))


def test_pairs_between_two_sets_are_some_of_all_pairs(rng):
    """Also in a cell narrower than the cutoff, of points outside of it."""
    cell = np.array([[6.0, 0.0, 0.0], [2.0, 5.0, 0.0], [-1.0, 1.5, 7.0]])
    centers, others = rng.uniform(-9.0, 9.0, (4, 3)), rng.uniform(-9.0, 9.0, (9, 3))
    index, shift = neighbor_list(np.concatenate((centers, others)), cell, True, 7.5)
    (first, second), images = index.numpy(), shift.numpy()
    between = (first < 4) & (second >= 4)
    expected = {
        (i, j - 4, *s)
        for i, j, s in zip(first[between], second[between], images[between].tolist(), strict=True)
    }
    atoms, sites, shifts = pairs_between(centers, others, cell, 7.5)
    found = [(i, j, *s) for i, j, s in zip(atoms, sites, shifts.tolist(), strict=True)]
    assert len(found) == len(expected) > 100
    assert set(found) == expected
