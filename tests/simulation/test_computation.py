"""The computation behind the force: what it keeps between evaluations changes no result."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from openmm_nequiplr import create_system, current_evaluation
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation import Computation, from_atoms, get_computation

from .twins import simulation_of


def computations(atoms, model, **options):
    """One that keeps its neighbours for long, and one that searches for every geometry."""
    structure = from_atoms(atoms)
    settings = get_computation(create_system(structure.topology, model, **options)).settings
    kept, fresh = (Computation(dataclasses.replace(settings, skin=s)) for s in (1.5, 0.0))
    cell = None if structure.box is None else 10.0 * structure.box
    return kept, fresh, 10.0 * structure.positions, cell


@pytest.mark.parametrize("name", ["rock_salt", "skewed_salt", "cluster"])
def test_kept_neighbours_change_nothing(request, rng, ionic_model, name):
    kept, fresh, positions, cell = computations(
        request.getfixturevalue(name), ionic_model, long_range="graph"
    )
    for step in range(6):
        positions = positions + 0.05 * rng.normal(size=positions.shape)
        if cell is not None:
            jumps = rng.integers(-1, 2, size=positions.shape) * (step % 2)
            positions = positions + jumps @ cell
            scale = 1.0 + 0.01 * rng.normal()  # as a barostat tries
            positions, cell = scale * positions, scale * cell
        ours, expected = kept.evaluate(positions, cell), fresh.evaluate(positions, cell)
        assert ours.energy == expected.energy
        np.testing.assert_array_equal(ours.forces, expected.forces)
        np.testing.assert_array_equal(ours.charges, expected.charges)
    assert kept._graphs.neighbors.searches < fresh._graphs.neighbors.searches == 6


def test_charges_of_a_frame_use_the_same_neighbours(rng, ionic_model, rock_salt):
    kept, fresh, positions, cell = computations(rock_salt, ionic_model)
    for _ in range(4):
        positions = positions + 0.02 * rng.normal(size=positions.shape)
        charges = kept.charges(positions, cell)
        np.testing.assert_array_equal(charges, fresh.charges(positions, cell))
    assert kept.evaluations == 0
    assert kept._graphs.neighbors.searches == 1


def test_settings_of_systems_written_before_there_was_a_skin(ionic_model, cluster):
    kept, _, positions, _ = computations(cluster, ionic_model)
    settings = dataclasses.replace(kept.settings)
    del settings.__dict__["skin"]
    assert np.isfinite(Computation(settings).evaluate(positions).energy)


def test_other_objects_are_refused(tiny_model, cluster):
    simulation = simulation_of(cluster, tiny_model, total_charge=0)
    for call, given, expected in (
        (get_computation, simulation.system.getForce(0), "system: expected an openmm.System"),
        (current_evaluation, simulation, "context: .*such as simulation.context"),
        (from_atoms, "chain.extxyz", "atoms: expected an ase.Atoms"),
    ):
        with pytest.raises(InputError, match=expected):
            call(given)
