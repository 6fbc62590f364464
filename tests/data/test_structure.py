"""Structures refuse what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.boundaries import FREE
from openmm_nequiplr.data import Structure
from openmm_nequiplr.errors import InputError


def _water(**changes: object) -> Structure:
    values: dict = {
        "symbols": ("O", "H", "H"),
        "positions": [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]],
        "forces": np.zeros((3, 3), dtype=np.float32),
        "charges": [-0.8, 0.4, 0.4],
        "energy": -76,
    }
    return Structure(**(values | changes))


def test_everything_becomes_float64():
    structure = _water(cell=np.eye(3, dtype=int) * 10, pbc=True)
    for name in ("positions", "cell", "forces", "charges"):
        assert getattr(structure, name).dtype == np.float64
    assert isinstance(structure.energy, float)
    assert structure.num_atoms == 3


def test_arrays_are_copied():
    positions = np.zeros((1, 3))
    structure = Structure(("H",), positions)
    positions += 1.0
    assert not structure.positions.any()


def test_cell_of_a_molecule_is_dropped():
    assert _water(cell=np.zeros((3, 3))).cell is None


def test_free_space_puts_molecules_together():
    """A bond that the boundary cuts is one again; a label of the cell is gone."""
    cell = np.diag([9.0, 10.0, 11.0])
    wrapped = Structure(
        ("O", "H"), np.array([[0.2, 5.0, 5.0], [8.5, 5.0, 5.0]]), cell, True, stress=np.eye(3)
    )
    free = wrapped.in_free_space()
    assert np.linalg.norm(np.diff(free.positions, axis=0)) == pytest.approx(0.7)
    np.testing.assert_array_equal(free.positions[0], wrapped.positions[0])
    assert (free.pbc, free.cell, free.stress) == (FREE, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.zeros((2, 3))}, r"positions: expected shape \[3, 3\], got .*\[2, 3\]"),
        ({"forces": np.zeros(9)}, r"forces: expected shape \[3, 3\]"),
        ({"charges": [0.1, np.nan, 0.2]}, "charges: expected finite numbers"),
        ({"energy": np.inf}, "energy: expected a finite number"),
        ({"energy": "low"}, "energy: expected one number, got 'low'"),
        ({"energy": True}, "energy: expected one number, got True"),
        ({"charges": [True, False, True]}, r"charges: expected numbers of shape \[3\]"),
        ({"dipole": [1.0, 2.0]}, r"dipole: expected shape \[3\]"),
        ({"pbc": True}, "cell: expected three cell vectors"),
        ({"pbc": True, "cell": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "cell: expected three indep"),
        ({"symbols": ()}, "symbols: expected at least one atom"),
    ],
)
def test_errors_name_argument_and_expectation(changes, message):
    with pytest.raises(InputError, match=message):
        _water(**changes)
