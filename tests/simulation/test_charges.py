"""Charges of a NonbondedForce: the compiled loop against the slow one."""

from __future__ import annotations

import ctypes

import numpy as np
import openmm
import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.jit import numba_available
from openmm_nequiplr.simulation import charges as module
from openmm_nequiplr.simulation.charges import compiled_loop, set_charges, set_charges_slowly


def force_of(count):
    force = openmm.NonbondedForce()
    for _ in range(count):
        force.addParticle(1.0, 1.0, 0.0)
    return force


def parameters(force):
    """Charge (e), σ (nm) and ε (kJ/mol) of each particle."""
    rows = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    return np.array([[value._value for value in row] for row in rows])


@pytest.fixture
def fresh():
    """The loop is looked for anew, and again after the test."""
    compiled_loop.cache_clear()
    yield
    compiled_loop.cache_clear()


def test_the_compiled_loop_is_there_where_numba_is():
    assert (compiled_loop() is not None) == numba_available()


@pytest.mark.parametrize("count", [1, 3, 1500])
def test_fast_and_slow_set_the_same(rng, count):
    fast, slow = force_of(count), force_of(count)
    for _ in range(2):
        charges = rng.normal(size=count)
        set_charges(fast, charges)
        set_charges_slowly(slow, charges)
        np.testing.assert_array_equal(parameters(fast), parameters(slow))
        np.testing.assert_array_equal(parameters(fast)[:, 0], charges)


def test_the_loop_itself_on_few_particles(rng):
    loop = compiled_loop()
    if loop is None:
        pytest.skip("numba is not installed")
    force, charges = force_of(3), rng.normal(size=3)
    loop(int(force.this), charges)
    np.testing.assert_array_equal(parameters(force), [[q, 1.0, 0.0] for q in charges])


def test_charges_of_any_layout(rng):
    force = force_of(600)
    table = rng.normal(size=(600, 2)).astype(np.float32)
    set_charges(force, table[:, 1])
    np.testing.assert_array_equal(parameters(force)[:, 0], table[:, 1])


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), ()])
def test_another_number_of_charges(shape):
    with pytest.raises(InputError, match=r"charges: expected shape \(3,\)"):
        set_charges(force_of(3), np.zeros(shape))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("missing", ["numba", "library", "symbol"])
def test_without_the_means_it_is_the_slow_loop(monkeypatch, missing):
    if missing == "numba":
        monkeypatch.setattr(module, "numba_available", lambda: False)
    elif missing == "library":
        monkeypatch.setattr(module, "_LIBRARY", "libAbsent.so")
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    assert compiled_loop() is None
    force = force_of(600)
    set_charges(force, np.arange(600.0))
    np.testing.assert_array_equal(parameters(force)[:, 0], np.arange(600.0))


def test_charges_reach_the_context(rng):
    """Against the sum over all pairs."""
    from openmm_nequiplr.simulation.pme import PointChargeCoulomb
    from openmm_nequiplr.units import COULOMB_CONSTANT

    count = 520
    positions = 20.0 * rng.uniform(size=(count, 3))
    first, second = np.triu_indices(count, 1)
    inverse = 1.0 / np.linalg.norm(positions[first] - positions[second], axis=1)
    coulomb = PointChargeCoulomb(count, False, precision="double")
    for _ in range(2):
        charges = rng.normal(size=count)
        expected = COULOMB_CONSTANT * np.sum(charges[first] * charges[second] * inverse)
        assert coulomb(positions, None, charges)[0] == pytest.approx(expected, rel=1e-10)
