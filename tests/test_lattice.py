"""Bases of a lattice, against ASE's reduction and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.geometry.minkowski_reduction import minkowski_reduce

from openmm_nequiplr.errors import BoxError
from openmm_nequiplr.lattice import (
    check_cell,
    continued,
    matched,
    reduced,
    reduced_basis,
    reduction,
)


def unimodular(rng, steps=9):
    """A random change of basis: whole numbers, determinant ±1."""
    basis = np.eye(3, dtype=int)[rng.permutation(3)]
    for _ in range(steps):
        row, other = rng.choice(3, 2, replace=False)
        basis[row] += rng.integers(-3, 4) * basis[other]
    return basis


def test_vectors_as_short_as_those_of_ase(rng):
    for _ in range(60):
        cell = unimodular(rng) @ (rng.normal(size=(3, 3)) * np.exp(rng.normal(size=(3, 1))))
        basis = np.array(reduction(cell.tolist(), 0.0))
        assert round(np.linalg.det(basis)) == 1
        ours = np.sort(np.linalg.norm(basis @ cell, axis=1))
        theirs = np.sort(np.linalg.norm(minkowski_reduce(cell)[0], axis=1))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize(
    "cell",
    [
        np.diag([4.0, 50.0, 9.0]),
        np.array([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 1.0, 8.0]]),  # left-handed
        np.array([[4.0, 0.0, 0.0], [-2.0, 12.0**0.5, 0.0], [0.0, 0.0, 9.0]]),  # 60° or 120°
        np.array([[4.0, 0.0, 0.0], [2.04, 3.4, 0.0], [0.0, 0.0, 9.0]]),  # a little beyond that
    ],
)
def test_good_cells_are_left_as_they_are(cell):
    assert reduced_basis(cell) is None
    assert reduced(cell) is cell


def test_torchscript_reduces_alike(rng):
    compiled = torch.jit.script(reduction)
    for _ in range(5):
        rows = (unimodular(rng) @ np.diag([9.0, 10.0, 11.0])).tolist()
        assert compiled(rows, 0.02) == reduction(rows)


def test_a_strained_cell_is_matched_in_any_basis(rng):
    cell = np.array([[9.0, 0.0, 0.0], [2.5, 8.5, 0.0], [-1.5, 2.0, 10.0]])
    for _ in range(20):
        strain = np.eye(3) + 0.01 * rng.normal(size=(3, 3))
        basis = unimodular(rng, 3)
        target = basis @ cell @ strain
        np.testing.assert_allclose(matched(cell, target), basis @ cell, atol=1e-9)
    other = np.diag([3.0, 40.0, 8.0])
    assert matched(cell, other) is cell


def test_atoms_are_followed_through_wraps_flips_and_strain(rng):
    cell = np.array([[9.0, 0.0, 0.0], [2.5, 8.5, 0.0], [-1.5, 2.0, 10.0]])
    sites = rng.uniform(-2.0, 3.0, (20, 3))
    before = sites @ cell
    strain = np.eye(3) + 0.01 * rng.normal(size=(3, 3))
    flipped = (np.array([[1, 0, 0], [-1, 1, 0], [2, 1, -1]]) @ cell) @ strain
    expected = before @ strain + rng.uniform(-0.3, 0.3, (20, 3))
    wrapped = expected - np.floor(expected @ np.linalg.inv(flipped)) @ flipped
    np.testing.assert_allclose(continued(wrapped, flipped, before, cell), expected, atol=1e-9)


@pytest.mark.parametrize(
    "cell",
    [
        *(np.zeros((3, 3)), np.ones((3, 3)), np.eye(2)),
        *(np.diag([1.0, 2.0, np.nan]), np.diag([0.05, 5.0, 5.0])),
    ],
    ids=["zero", "flat", "shape", "nan", "tiny"],
)
def test_what_is_no_cell_is_refused(cell):
    with pytest.raises(BoxError, match="cell: expected"):
        check_cell(cell)
