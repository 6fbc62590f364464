"""Kept neighbour lists are those of a fresh search, whatever happened in between."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr import jit, verlet
from openmm_nequiplr.errors import BoxError, InputError
from openmm_nequiplr.neighbors import neighbor_list
from openmm_nequiplr.verlet import VerletList, choose_pairs, choose_pairs_slowly

CUTOFF = 4.0
CELLS = {
    "cubic": np.diag([11.0, 11.0, 11.0]),
    "tiny": np.diag([2.5, 3.0, 3.5]),
    "triclinic": np.array([[7.0, 0.0, 0.0], [3.0, 6.0, 0.0], [-2.0, 2.5, 8.0]]),
    "skewed": np.array([[3.0, 0.0, 0.0], [7.0, 4.0, 0.0], [-1.0, 9.0, 5.0]]),
    "left-handed": np.array([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 1.0, 8.0]]),
}


@pytest.fixture(params=["loops", "torch"])
def either_way(request, monkeypatch):
    """Compiled loops, or none."""
    if request.param == "torch":
        monkeypatch.setattr(verlet, "compiled", lambda function: None)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def walk(rng, positions, cell, steps=60, size=0.03):
    """Atoms that move a little, and now and then to another image."""
    inverse = np.linalg.inv(cell)
    for step in range(steps):
        positions = positions + size * rng.normal(size=positions.shape) + 0.05  # and drift
        if step % 7 == 3:
            positions = positions - np.floor(positions @ inverse) @ cell
        if step % 11 == 5:
            positions = positions + rng.integers(-2, 3, size=positions.shape) @ cell
        yield positions


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_a_walk_through_images(rng, name, full):
    cell = CELLS[name]
    kept = VerletList(1.0, full)
    steps = 0
    for positions in walk(rng, rng.uniform(size=(20, 3)) @ cell, cell):
        expected = neighbor_list(positions, cell, True, CUTOFF, full)
        assert_same(kept(positions, cell, True, CUTOFF), expected)
        steps += 1
    assert 1 < kept.searches < steps / 3


@pytest.mark.usefixtures("either_way")
def test_without_a_cell(rng):
    kept = VerletList(1.0)
    positions = rng.uniform(size=(30, 3)) * 9.0
    for _ in range(40):
        positions = positions + 0.03 * rng.normal(size=positions.shape)
        expected = neighbor_list(positions, np.zeros((3, 3)), False, CUTOFF)
        assert_same(kept(positions, np.zeros((3, 3)), False, CUTOFF), expected)
    assert 1 < kept.searches < 20


@pytest.mark.parametrize("name", CELLS)
def test_boxes_that_change(rng, name):
    cell, kept, steps = CELLS[name], VerletList(1.5), 0
    fractional = rng.uniform(-1.0, 2.0, size=(15, 3))
    for strain in 0.035 * rng.normal(size=(60, 3, 3)):
        cell = cell @ (np.eye(3) + strain)
        fractional = fractional + 0.002 * rng.normal(size=fractional.shape)
        positions = fractional @ cell
        assert_same(
            kept(positions, cell, True, CUTOFF), neighbor_list(positions, cell, True, CUTOFF)
        )
        steps += 1
    assert 1 < kept.searches < steps / 2


def test_a_box_described_by_other_vectors(rng):
    cell = CELLS["triclinic"]
    other = cell.copy()
    other[1] -= cell[0]  # as a flexible barostat does when it reduces the box
    positions = rng.uniform(size=(20, 3)) @ cell
    kept = VerletList()
    for box in (cell, other, cell):
        assert_same(kept(positions, box, True, CUTOFF), neighbor_list(positions, box, True, CUTOFF))
    assert kept.searches == 3


def test_a_pair_that_comes_from_beyond_the_skin():
    cell = np.diag([30.0, 30.0, 30.0])
    kept = VerletList(1.0)
    start = np.array([[0.0, 0.0, 0.0], [5.01, 0.0, 0.0], [20.0, 20.0, 20.0]])
    kept(start, cell, True, CUTOFF)
    for shift in (0.2, 0.5, 0.52, 1.1):
        positions = start + np.outer([shift, -shift, 0.0], [1.0, 0.0, 0.0])
        edges = kept(positions, cell, True, CUTOFF)
        assert_same(edges, neighbor_list(positions, cell, True, CUTOFF))
    assert edges[0].shape == (2, 2)
    assert kept.searches == 3


def test_shorter_cutoffs_need_no_search_and_longer_ones_do(rng):
    cell = CELLS["cubic"]
    positions = rng.uniform(size=(20, 3)) @ cell
    kept = VerletList(1.0)
    for cutoff, searches in ((4.0, 1), (3.0, 1), (4.9, 1), (5.5, 2), (4.0, 2)):
        assert_same(
            kept(positions, cell, True, cutoff), neighbor_list(positions, cell, True, cutoff)
        )
        assert kept.searches == searches


def test_a_common_drift_needs_no_search(rng):
    cell = CELLS["triclinic"]
    positions = rng.uniform(size=(20, 3)) @ cell
    kept = VerletList(0.5)
    for step in range(30):
        moved = positions + 0.05 * step
        assert_same(kept(moved, cell, True, CUTOFF), neighbor_list(moved, cell, True, CUTOFF))
    assert kept.searches < 3


def test_an_atom_and_its_images():
    kept, cell = VerletList(), np.diag([3.0, 3.0, 3.0])
    for x in (0.0, 0.1, 40.0):
        index, shift = kept(np.full((1, 3), x), cell, True, 4.0)
        assert index.shape == (2, 6)
        assert shift.abs().sum() == 6
    assert VerletList(full=False)(np.zeros((1, 3)), cell, True, 4.0)[0].shape == (2, 3)


def test_other_atoms_or_another_periodicity(rng):
    cell, kept = CELLS["cubic"], VerletList()
    positions = rng.uniform(size=(20, 3)) @ cell
    for points, periodic in ((positions, True), (positions[:7], True), (positions[:7], False)):
        assert_same(
            kept(points, cell, periodic, CUTOFF), neighbor_list(points, cell, periodic, CUTOFF)
        )
    assert kept.searches == 3


def test_without_skin_nothing_is_kept(rng):
    cell, kept = CELLS["cubic"], VerletList(0.0)
    positions = rng.uniform(size=(20, 3)) @ cell
    for _ in range(2):
        kept(positions, cell, True, CUTOFF)
    assert kept.searches == 2


def test_wrong_arguments(rng):
    for skin in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="skin: expected"):
            VerletList(skin)
    kept = VerletList()
    positions = rng.uniform(size=(4, 3))
    kept(positions, np.eye(3), True, 1.5)
    with pytest.raises(BoxError, match="three independent vectors"):
        kept(positions, np.ones((3, 3)), True, 1.5)


def test_loops_and_torch_choose_alike(rng):
    if not jit.numba_available():
        pytest.skip("numba is not installed")
    cell = CELLS["triclinic"]
    positions = rng.uniform(size=(40, 3)) @ cell
    tensors = (*neighbor_list(positions, cell, True, 5.0), *map(torch.tensor, (positions, cell)))
    expected = choose_pairs_slowly(*tensors, 4.0)
    for loops in (choose_pairs, jit.compiled(choose_pairs)):
        found = loops(*(tensor.numpy() for tensor in tensors), 4.0)
        assert_same(map(torch.from_numpy, found), expected)
    assert 0 < expected[0].shape[1] < tensors[0].shape[1]


def test_candidates_stay_the_same_until_there_is_a_search(rng):
    cell, kept = CELLS["triclinic"], VerletList(1.0, full=False)
    before = None
    for positions in walk(rng, rng.uniform(size=(20, 3)) @ cell, cell):
        found = kept.candidates(positions, cell, True, CUTOFF)
        assert found.search == kept.searches
        if before is not None and found.search == before.search:
            assert found.edge_index is before.edge_index
            assert found.edge_shift is before.edge_shift
        before = found
        np.testing.assert_allclose(found.points + found.images @ cell, positions, atol=1e-12)
        index, shift = found.edge_index.numpy(), found.edge_shift.numpy()
        vectors = found.points[index[1]] - found.points[index[0]] + shift @ cell
        lengths = np.linalg.norm(vectors, axis=1)
        expected, _ = neighbor_list(positions, cell, True, CUTOFF, False)
        assert (lengths < CUTOFF).sum() == expected.shape[1]
    assert 1 < kept.searches < 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_another_device(rng):
    cell, kept = CELLS["triclinic"], VerletList(1.0, device="cuda")
    for positions in walk(rng, rng.uniform(size=(20, 3)) @ cell, cell, 20):
        found = kept(positions, cell, True, CUTOFF)
        assert found[0].is_cuda
        expected = neighbor_list(positions, cell, True, CUTOFF)
        assert_same((tensor.cpu() for tensor in found), expected)
    assert kept.searches < 10
