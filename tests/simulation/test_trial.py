"""Short runs: when they have failed, and what they say then."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import pytest

from openmm_nequiplr.data import Structure
from openmm_nequiplr.errors import ConvergenceError
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import trial
from openmm_nequiplr.simulation.computation import Computation
from openmm_nequiplr.simulation.trial import run_dynamics


@pytest.fixture
def free_atoms(make_model):
    """Atoms that feel nothing at all."""
    model = copy.deepcopy(make_model(electrostatic_energy="coulomb"))
    for name in ("energy_scales", "electronegativity_scales", "electronegativity_shifts"):
        dict(model.named_buffers())[name].zero_()
    return model


PAIR = Structure(("Na", "Cl", "Cl"), np.array([[0.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0]]))


def test_free_atoms_hold_and_repeat(free_atoms):
    one, two = (run_dynamics(free_atoms, PAIR, 300.0, ps=0.12, fs=1.0, seed=3) for _ in range(2))
    assert one.failed_at is None
    assert one.message == ""
    np.testing.assert_allclose(one.times, [0.05, 0.1, 0.12])
    np.testing.assert_array_equal(one.temperatures, two.temperatures)
    assert one.charges.seen["Na"] == pytest.approx((0.0, 0.0), abs=1e-6)


def test_atoms_that_meet_are_named(free_atoms):
    narrow = Structure(PAIR.symbols, PAIR.positions, cell=5.0 * np.eye(3), pbc=True)
    run = run_dynamics(free_atoms, narrow, 20_000.0, ps=5.0, fs=1.0, seed=1)
    assert run.failed_at is not None
    assert run.failed_at == pytest.approx(run.times[-1])
    assert run.failed_at < 5.0
    assert re.fullmatch(r"(Na|Cl)\d–(Na|Cl)\d [01]\.\d\d Å apart", run.message)


@pytest.mark.parametrize("evaluations", [0, 60])
def test_an_evaluation_that_fails_ends_a_run(free_atoms, monkeypatch, evaluations):
    right, left = Computation.evaluate, iter(range(evaluations))

    def fails(self, positions, cell=None, field=None):
        if next(left, None) is None:
            raise ConvergenceError("charges: expected a solution, got none")
        return right(self, positions, cell, field)

    monkeypatch.setattr(Computation, "evaluate", fails)
    run = run_dynamics(free_atoms, PAIR, 300.0, ps=1.0, fs=1.0, seed=1)
    assert run.failed_at == (0.1 if evaluations else 0.0)
    assert "charges: expected a solution" in run.message


def test_a_run_that_heats_up_ends(free_atoms, monkeypatch):
    limit = lambda target, freedom, strained=True: (9.0 if strained else 0.01) * target  # noqa: E731
    monkeypatch.setattr(trial, "hottest", limit)
    run = run_dynamics(free_atoms, PAIR, 300.0, ps=0.2, fs=1.0, seed=1)
    assert run.failed_at == pytest.approx(0.125, abs=0.03)  # it has time to warm up
    assert run.message.endswith(" K")


def test_runs_are_in_the_field_of_the_structure(make_model):
    field = np.array([0.2, -0.1, 0.3])
    model = make_model(electrostatic_energy="coulomb")
    graph = model.build_graph(PAIR.symbols, PAIR.positions, electric_field=field)
    expected = Evaluator(model)(graph).charges[0]
    inside = replace(PAIR, electric_field=field)
    run = run_dynamics(model, inside, 300.0, ps=1e-6, fs=0.001, seed=1)
    assert run.charges.seen["Na"] == pytest.approx((expected, expected), abs=1e-4)
