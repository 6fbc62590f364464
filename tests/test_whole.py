"""Molecules across a boundary."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from openmm_nequiplr.whole import WholeMolecules


def distances(positions):
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


CELLS = {
    "cubic": 9.0 * np.eye(3),
    "triclinic": np.array([[9.0, 0, 0], [4.0, 8.5, 0], [-3.0, 4.0, 8.0]]),
    "skewed": np.array([[9.0, 0, 0], [31.0, 8.5, 0], [-22.0, 40.0, 8.0]]),
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_any_images_give_the_same_molecule(cell, rng):
    atoms = molecule("CH3CH2OH")
    expected, whole = distances(atoms.positions), WholeMolecules()
    for _ in range(20):
        images = rng.integers(-2, 3, size=(len(atoms), 3))
        moved = atoms.positions + images @ cell + rng.normal(size=3)
        joined = whole(moved, cell)
        np.testing.assert_allclose(distances(joined), expected, atol=1e-9)
        np.testing.assert_allclose(joined[0], moved[0])
        fractions = np.linalg.solve(cell.T, (joined - moved).T)
        np.testing.assert_allclose(fractions, np.round(fractions), atol=1e-9)


def test_long_chains_and_pairs_of_molecules(rng):
    """Longer than half the cell, and two molecules with a gap: no memory of earlier calls."""
    cell = 12.0 * np.eye(3)
    chain = np.array([[1.3 * k, 0.3 * (k % 2), 0.0] for k in range(8)])
    pair = np.concatenate((chain[:4], chain[:4] + np.array([0.0, 4.0, 1.0])))
    for positions in (chain, pair):
        expected, used = WholeMolecules()(positions, cell), WholeMolecules()
        np.testing.assert_allclose(distances(expected), distances(positions), atol=1e-9)
        for _ in range(5):
            used(rng.uniform(0.0, 12.0, positions.shape), cell)
            moved = positions + 12.0 * rng.integers(-1, 2, size=positions.shape)
            np.testing.assert_allclose(distances(used(moved, cell)), distances(expected), atol=1e-9)


def test_what_was_found_is_used_again(monkeypatch):
    from openmm_nequiplr import whole as module

    atoms, cell = molecule("CH3CH2OH"), 20.0 * np.eye(3)
    whole = WholeMolecules()
    whole(atoms.positions, cell)
    monkeypatch.setattr(module, "_spanning_tree", None)
    wrapped = np.mod(atoms.positions, 20.0)
    np.testing.assert_allclose(distances(whole(wrapped, cell)), distances(atoms.positions))
