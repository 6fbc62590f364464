"""The line on what runs."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.describe import describe_atoms, describe_charges, describe_threads
from openmm_nequiplr.model import ModelConfig
from openmm_nequiplr.model.solving import SolverOptions


def test_atoms_charge_and_box():
    box = 11.28 * np.eye(3)
    salt = ["Na", "Cl"] * 32
    assert describe_atoms(salt, 0.0, box) == "64 atoms Na32Cl32, charge 0, box 11.3 × 11.3 × 11.3 Å"
    found = describe_atoms(["C", "H", "H"], -1.0, None, assumed=True, frozen=2)
    assert found == "3 atoms CH2 (2 held fixed), charge -1 (assumed), no box"
    assert describe_atoms(["O"], 0.0, box, slab=True).endswith("11.3 Å of a slab")
    box[1, 0] = 2.0
    assert describe_atoms(["O"], 1.0, box).endswith("11.3 × 11.5 × 11.3 Å (90.0°, 90.0°, 79.9°)")


@pytest.mark.parametrize(
    ("options", "count", "periodic", "long_range", "expected"),
    [
        ({}, 64, True, "openmm", "charges by dense solve, Coulomb energy by PME"),
        ({}, 5000, True, "graph", "charges by iterative solve, Coulomb energy by the mesh"),
        ({}, 64, True, "graph", "charges by dense solve, Coulomb energy by an Ewald sum"),
        ({}, 64, False, "openmm", "charges by dense solve, Coulomb energy by a sum over all pairs"),
        ({"legacy_periodic": True}, 64, True, "graph", "charges by dense solve that do not"),
        ({"equilibration": False}, 64, True, "graph", "no charges"),
    ],
)
def test_charges(options, count, periodic, long_range, expected):
    config = ModelConfig(type_names=("O",), r_max=3.0, **options)
    found = describe_charges(config, count, periodic, SolverOptions(), long_range)
    assert found.startswith(expected)


def test_threads():
    assert [describe_threads(count) for count in (1, 2)] == ["1 thread", "2 threads"]
