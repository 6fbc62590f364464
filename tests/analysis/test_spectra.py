"""Infrared and Raman spectra of known motions."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.analysis import infrared_spectrum, raman_spectrum
from openmm_nequiplr.analysis.spectra import LIGHT
from openmm_nequiplr.errors import InputError


def oscillation(wavenumber, amplitude=1.0, interval=0.001, frames=8000, axis=0):
    dipoles = np.zeros((frames, 3))
    time = interval * np.arange(frames)
    dipoles[:, axis] = amplitude * np.cos(2 * np.pi * LIGHT * wavenumber * time)
    return dipoles


@pytest.mark.parametrize("wavenumber", [300.0, 1650.0, 3400.0])
def test_place_and_size_of_a_line(wavenumber):
    """The power of dμ/dt is half its amplitude squared, which the line holds as its area."""
    spectrum = infrared_spectrum(oscillation(wavenumber, 0.5), 0.001, resolution=20)
    peak = spectrum.wavenumbers[spectrum.intensity.argmax()]
    assert abs(peak - wavenumber) < 20
    area = np.trapezoid(spectrum.intensity, spectrum.wavenumbers)
    expected = 0.5 * (0.5 * 2 * np.pi * LIGHT * wavenumber) ** 2
    assert area == pytest.approx(expected, rel=0.02)


def test_directions_add_up():
    both = oscillation(500.0) + oscillation(500.0, axis=2)
    one, two = (infrared_spectrum(d, 0.001).intensity.max() for d in (oscillation(500.0), both))
    assert two == pytest.approx(2 * one, rel=1e-6)


def test_a_constant_dipole_does_not_absorb():
    dipoles = np.full((200, 3), 7.0)
    assert infrared_spectrum(dipoles, 0.002).intensity.max() < 1e-20


def test_resolution_of_short_runs():
    """One window at most: a trajectory of 0.1 ps does not tell 20 1/cm apart."""
    spectrum = infrared_spectrum(oscillation(1000.0, frames=101), 0.001, resolution=1.0)
    assert np.diff(spectrum.wavenumbers)[0] == pytest.approx(1 / (LIGHT * 0.1), rel=1e-6)


@pytest.mark.parametrize(
    ("dipoles", "interval", "name"),
    [
        (np.zeros((100, 2)), 0.001, "dipoles"),
        (np.zeros((5, 3)), 0.001, "dipoles"),
        (np.full((100, 3), np.nan), 0.001, "dipoles"),
        (np.zeros((100, 3)), 0.0, "interval"),
        (np.zeros((100, 3)), "2 fs", "interval"),
    ],
)
def test_bad_input(dipoles, interval, name):
    with pytest.raises(InputError, match=f"^{name}: "):
        infrared_spectrum(dipoles, interval)


AXIAL = np.diag([1.0, 1.0, 4.0])


@pytest.mark.parametrize(
    ("slope", "depolarization"),
    [
        (np.eye(3), 0.0),
        (AXIAL, 3 * 9 / (45 * 4 + 4 * 9)),
        (np.diag([1.0, -1.0, 0.0]), 0.75),
        (np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]]), 0.75),
    ],
)
def test_raman_line_of_an_oscillator(slope, depolarization):
    """Place, size 45 a'² + 7 γ'², and the depolarisation ratio, in any orientation."""
    amplitude, wavenumber = 0.3, 1100.0
    coordinate = oscillation(wavenumber, amplitude)[:, 0]
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    alpha = 5.0 * np.eye(3) + coordinate[:, None, None] * (turned @ slope @ turned.T)
    found = raman_spectrum(alpha, 0.001)
    peak = found.intensity.argmax()
    assert abs(found.wavenumbers[peak] - wavenumber) < 20
    assert found.depolarization[peak] == pytest.approx(depolarization, abs=1e-9)
    mean = np.trace(slope) / 3
    anisotropy = 1.5 * ((slope - mean * np.eye(3)) ** 2).sum()
    power = 0.5 * (amplitude * 2 * np.pi * LIGHT * wavenumber) ** 2
    area = np.trapezoid(found.intensity, found.wavenumbers)
    assert area == pytest.approx(power * (45 * mean**2 + 7 * anisotropy), rel=0.02)


def test_polarizabilities_are_checked():
    with pytest.raises(InputError, match="^polarizabilities: "):
        raman_spectrum(np.zeros((100, 3)), 0.001)
