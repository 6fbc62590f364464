"""Diffusion, conductivity and dielectric constants of known models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openmm_nequiplr.analysis import (
    dielectric_constant,
    diffusion,
    electronic_dielectric_constant,
    infrared_spectrum,
    ionic_conductivity,
    mean_square_displacement,
    moving_dipole,
)
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.units import BOLTZMANN, COULOMB_CONSTANT


def test_against_the_double_sum(rng):
    points = rng.normal(size=(30, 5, 3)).cumsum(axis=0) + 100.0
    found = mean_square_displacement(points)
    for lag in range(30):
        moved = points[lag:] - points[: 30 - lag]
        assert found[lag] == pytest.approx((moved**2).sum(axis=2).mean(), abs=1e-9)


def langevin(rng, frames, count, friction, velocity, interval):
    """Free particles by the exact propagator of Langevin's equation (Gillespie 1996), Å."""
    decay = math.exp(-friction * interval)
    squares = velocity**2 * (1 - decay**2)
    spread = velocity / friction
    variance = spread**2 * (2 * friction * interval - 3 + 4 * decay - decay**2)
    mixed = velocity * spread * (1 - decay) ** 2
    noise = np.linalg.cholesky([[squares, mixed], [mixed, variance]])
    v, x = velocity * rng.normal(size=(count, 3)), np.zeros((count, 3))
    rows = []
    for _ in range(frames):
        rows.append(x)
        kick = noise @ rng.normal(size=(2, count * 3))
        x = x + v * (1 - decay) / friction + kick[1].reshape(-1, 3)
        v = decay * v + kick[0].reshape(-1, 3)
    return np.array(rows)


def test_langevin_particles(rng):
    """D = k_B T/(m γ), and before that the exact mean square displacement."""
    velocity, interval = 3.0, 0.05  # Å/ps, ps
    parts = [langevin(rng, 1500, 300, friction, velocity, interval) for friction in (2.0, 5.0)]
    together = np.concatenate(parts, axis=1)
    found = diffusion(together, ["Na"] * 300 + ["Cl"] * 300, interval, (0.04, 0.12))
    assert found.elements == ("Cl", "Na")
    np.testing.assert_allclose(found.coefficients, velocity**2 / np.array([5.0, 2.0]), rtol=0.05)
    for squares, friction in zip(found.squares, (5.0, 2.0), strict=True):
        t = found.times[:40]
        ballistic = t - (1 - np.exp(-friction * t)) / friction
        expected = 6 * velocity**2 / friction * ballistic
        np.testing.assert_allclose(squares[1:40], expected[1:], rtol=0.02)


def test_ions_that_know_nothing_of_one_another(rng):
    """Nernst and Einstein: σ = Σ q² D/(V k_B T), in S/m."""
    charges, diffused, interval = np.array([1.0, -1.0] * 50), 0.4, 0.1
    volume, temperature = 2e4, 1200.0
    found = []
    for _ in range(8):
        steps = rng.normal(size=(2000, 100, 3)) * math.sqrt(2 * diffused * interval)
        positions = steps.cumsum(axis=0)
        moved = moving_dipole(np.broadcast_to(charges, (2000, 100)), positions)
        found.append(ionic_conductivity(moved, interval, volume, temperature, (0.001, 0.05)))
    per_particle = diffused / (volume * BOLTZMANN * temperature)  # e/(V Å ps)
    siemens = 100 * per_particle * 1.602176634e-19 / (1e-10 * 1e-12)
    assert np.mean(found) == pytest.approx(siemens, rel=0.15)


def test_moving_dipole_of_born_charges(rng):
    """The change of a dipole whose derivatives are given, at second order in the steps."""

    def dipole(x):  # of two atoms, not linear
        return np.array([x[0, 0] * x[1, 1], x[0, 2] ** 2, x[1, 0] - x[0, 1]])

    def born(x):
        z = np.zeros((2, 3, 3))
        z[0, 0, 0], z[1, 0, 1], z[0, 1, 2] = x[1, 1], x[0, 0], 2 * x[0, 2]
        z[1, 2, 0], z[0, 2, 1] = 1.0, -1.0
        return z

    times = np.linspace(0, 1, 201)[:, None, None]
    path = rng.normal(size=(2, 3)) + np.sin(3 * times) * rng.normal(size=(2, 3))
    moved = moving_dipole(np.array([born(x) for x in path]), path)
    expected = np.array([dipole(x) for x in path]) - dipole(path[0])
    np.testing.assert_allclose(moved, expected, atol=1e-4)


def test_free_dipoles(rng):
    """Fröhlich: N rigid dipoles that do not feel one another have ε − 1 = 4π k_e N μ²/(3 V k T)."""
    count, moment, volume, temperature = 40, 0.5, 3000.0, 300.0
    directions = rng.normal(size=(6000, count, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    found = dielectric_constant(
        moment * directions.sum(axis=1) + 1000.0, volume, temperature, electronic=1.8
    )
    strength = 4 * math.pi * COULOMB_CONSTANT * count * moment**2
    expected = 1.8 + strength / (3 * volume * BOLTZMANN * temperature)
    assert found.shape == (6000,)
    assert found[0] == pytest.approx(1.8)
    assert found[-1] == pytest.approx(expected, rel=0.03)


def test_clausius_and_mossotti():
    """Argon, liquid at its boiling point: α = 1.64 Å³, 0.0211 atoms/Å³, ε = 1.504."""
    found = electronic_dielectric_constant(100 * 1.64 / COULOMB_CONSTANT, 100 / 0.0211)
    assert found == pytest.approx(1.504, abs=0.02)
    with pytest.raises(InputError, match="polarizability"):
        electronic_dielectric_constant(10.0, 100.0)


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (mean_square_displacement, (np.zeros((5, 3)),), "positions"),
        (mean_square_displacement, (np.full((5, 1, 3), np.nan),), "positions"),
        (diffusion, (np.zeros((5, 2, 3)), ["H"], 0.1), "positions"),
        (diffusion, (np.zeros((50, 1, 3)), ["H"], 0.0), "interval"),
        (diffusion, (np.zeros((50, 1, 3)), ["H"], 0.1, (0.5, 0.1)), "fit"),
        (diffusion, (np.zeros((4, 1, 3)), ["H"], 0.1), "fit"),
        (ionic_conductivity, (np.zeros((50, 3)), 0.1, -1.0, 300.0), "volume"),
        (dielectric_constant, (np.zeros((50, 2)), 1.0, 300.0), "dipoles"),
        (dielectric_constant, (np.zeros((50, 3)), 1.0, None), "temperature"),
    ],
)
def test_bad_input(function, arguments, name):
    with pytest.raises(InputError, match=f"^{name}: "):
        function(*arguments)


def test_units_and_shapes_that_do_not_fit_are_refused(rng):
    """NumPy would drop the units of a Quantity."""
    from openmm import unit

    walk = rng.normal(size=(20, 2, 3)).cumsum(axis=0)
    dipoles = walk[:, 0] * unit.elementary_charge * unit.nanometer
    for call, name in (
        (lambda: diffusion(walk * unit.nanometer, ["O", "H"], 1.0), "positions"),
        (lambda: moving_dipole(walk[..., 0], walk * unit.nanometer), "positions"),
        (lambda: ionic_conductivity(dipoles, 1.0, 1e3, 300.0), "dipoles"),
        (lambda: dielectric_constant(dipoles, 1e3, 300.0), "dipoles"),
        (lambda: infrared_spectrum(dipoles, 0.001), "dipoles"),
    ):
        with pytest.raises(InputError, match=f"{name}: expected plain numbers"):
            call()
    with pytest.raises(InputError, match=r"positions: expected shapes .* \(19, 2\) and \(20, 2, 3"):
        moving_dipole(walk[1:, :, 0], walk)
