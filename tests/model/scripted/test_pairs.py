"""Neighbours of the graph: the cell list against vesin, and the list that is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.model.scripted.pairs import PairList, close_gaps, half_pairs
from openmm_nequiplr.neighbors import neighbor_list


def as_set(first, second, shift):
    """Pairs with the smaller index first; of an atom and its image, the shift that leads up."""
    rows = np.column_stack([first, second, np.rint(shift)]).astype(int).tolist()
    found = set()
    for a, b, *image in rows:
        leading = next((k for k in image if k), 0)
        forward = a < b or (a == b and leading > 0)
        found.add((a, b, *image) if forward else (b, a, *(-k for k in image)))
    assert len(found) == len(rows)
    return found


CELLS = {
    "cubic": 9.0 * np.eye(3),
    "narrow": np.diag([3.0, 4.0, 20.0]),
    "skewed": np.array([[7.0, 0.0, 0.0], [5.5, 4.0, 0.0], [-3.0, 6.0, 5.0]]),
    "left-handed": np.array([[0.0, 6.0, 1.0], [6.0, 0.0, 0.5], [0.3, 0.2, 7.0]]),
    "long": np.diag([5.0, 5.0, 300.0]),
}


@pytest.mark.parametrize("cutoff", [2.0, 4.4, 9.7])
@pytest.mark.parametrize("name", CELLS)
def test_against_vesin(rng, name, cutoff):
    cell = CELLS[name]
    positions = (rng.random((25, 3)) * 3.0 - 1.0) @ cell
    found = half_pairs(torch.tensor(positions), torch.tensor(cell), cutoff)
    index, shift = neighbor_list(positions, cell, True, cutoff, full=False)
    assert as_set(*(x.numpy() for x in found)) == as_set(*index.numpy(), shift.numpy())


def test_work_grows_with_the_number_of_atoms(rng):
    """Bins hold few atoms: candidates are those of the neighbouring bins alone."""
    from openmm_nequiplr.model.scripted.pairs import _bins

    assert _bins([60.0, 60.0, 60.0], 6.0, 5000) == [10, 10, 10]
    assert _bins([6000.0, 6.0, 6.0], 6.0, 5000) == [1000, 1, 1]
    few = _bins([1e6, 1e6, 1e6], 5.0, 100)
    assert np.prod(few) <= 200


@pytest.mark.parametrize("periodic", [True, False])
def test_kept_list_is_complete(rng, periodic):
    cell = CELLS["skewed"] if periodic else np.eye(3)
    positions = rng.random((20, 3)) @ (cell if periodic else 8.0 * np.eye(3))
    pairs = PairList(3.0, periodic, 0.6)
    far = 6.0 if periodic else 0.0
    for step in range(8):
        positions = positions + 0.04 * rng.normal(size=positions.shape)
        box = cell
        if periodic:
            positions = positions + rng.integers(-1, 2, size=positions.shape) @ cell
            box = cell * (1.0 + 0.005 * (step % 3))  # as a barostat tries
        x, c = torch.tensor(positions), torch.tensor(box)
        tracked = pairs.update(x, c, far)
        jumps = (tracked - x).numpy() @ np.linalg.inv(box)
        np.testing.assert_allclose(jumps, np.rint(jumps), atol=1e-9)
        for near, cutoff in ((True, 3.0), (False, 6.0 if periodic else 3.0)):
            vector = pairs(tracked, c)[2]
            if not near:
                vector = tracked[pairs.second] - tracked[pairs.first]
                vector = vector + pairs.shift @ c * float(periodic)
            length = torch.linalg.vector_norm(vector, dim=-1).numpy()
            index, shift = neighbor_list(positions, box, periodic, cutoff, full=False)
            expected = positions[index[1]] - positions[index[0]] + shift.numpy() @ box * periodic
            assert (length < cutoff).sum() == index.shape[1]
            np.testing.assert_allclose(
                np.sort(length[length < cutoff]), np.sort(np.linalg.norm(expected, axis=1))
            )
    assert 1 < pairs.searches < 8


def test_no_pairs_at_all():
    pairs = PairList(3.0, False, 0.6)
    x = torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]], dtype=torch.float64)
    first, _, vector = pairs(pairs.update(x, torch.eye(3, dtype=torch.float64), 0.0), x)
    assert first.shape == (0,)
    assert vector.shape == (0, 3)


@pytest.mark.parametrize("apart", [[2e3, 2e3, 0.0], [1e6, -1e6, 1e6], [0.0, 0.0, 1e9]])
def test_fragments_anywhere(rng, apart):
    positions = rng.uniform(0.0, 5.0, (12, 3))
    positions[7:] += apart
    positions[10:] -= np.multiply(apart, 3.0)
    closed = close_gaps(torch.tensor(positions), 3.0)
    assert float((closed.max(dim=0)[0] - closed.min(dim=0)[0]).max()) < 12 * 3.0
    pairs, nowhere = PairList(2.4, False, 0.6), torch.eye(3, dtype=torch.float64)
    x = torch.tensor(positions)
    first, second, vector = pairs(pairs.update(x, nowhere, 0.0), nowhere)
    length = torch.linalg.vector_norm(vector, dim=-1)
    index, _ = neighbor_list(positions, np.zeros((3, 3)), False, 2.4, full=False)
    none = torch.zeros(len(first), 3)
    near = length < 2.4
    assert as_set(*(v[near].numpy() for v in (first, second, none))) == as_set(
        *index.numpy(), np.zeros((index.shape[1], 3))
    )


def test_more_neighbours_than_a_material_has_are_refused():
    x, cell = torch.zeros(1, 3, dtype=torch.float64), 0.3 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"expected room .* about \d+ neighbours"):
        PairList(4.0, True, 0.6).update(x, cell, 8.0)
