"""Diffusion, conductivity and dielectric constant from time series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import as_numbers, check_positive
from ..errors import InputError, describe
from ..units import BOLTZMANN, COULOMB_CONSTANT

#: 1 e/(V Å ps) in S/m.
_SIEMENS_PER_METRE = 1602.176634
#: Number of atoms whose displacements are averaged at a time.
_CHUNK = 512
#: Fractions of the trajectory between which slopes are fitted: beyond the ballistic regime, and
#: with enough pairs of frames.
FIT = (0.05, 0.25)


@dataclass(frozen=True)
class Diffusion:
    """Mean square displacements of E elements over F frames.

    Parameters
    ----------
    elements : tuple of str, length E
        In alphabetical order.
    times : numpy.ndarray, float64, shape (F,), ps
    squares : numpy.ndarray, float64, shape (E, F), Å²
    coefficients : numpy.ndarray, float64, shape (E,), Å²/ps
        Self-diffusion coefficients; 1 Å²/ps is 1e-8 m²/s.
    """

    elements: tuple[str, ...]
    times: np.ndarray
    squares: np.ndarray
    coefficients: np.ndarray


def mean_square_displacement(positions: np.ndarray) -> np.ndarray:
    """Mean square displacement ⟨|r(t + τ) − r(t)|²⟩ for each lag τ, shape (F,).

    The average is over particles and all pairs of frames, computed by fast Fourier transforms
    (Calandrini, Pellegrini, Calligari, Hinsen and Kneller 2011, doi:10.1051/sfn/201112010).

    Parameters
    ----------
    positions : numpy.ndarray, shape (F, N, 3)
        Unwrapped positions at equal intervals.

    Raises
    ------
    InputError
        If the shape is wrong, or a number is not finite.
    """
    points = as_numbers("positions", positions)
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[0] < 2 or points.shape[1] < 1:
        expected = "shape (F, N, 3) with at least two frames"
        raise InputError(describe("positions", f"shape {points.shape}", expected))
    if not np.isfinite(points).all():
        raise InputError(describe("positions", "NaN or infinity", "finite numbers"))
    frames, count = points.shape[:2]
    total = np.zeros(frames)
    for start in range(0, count, _CHUNK):
        some = points[:, start : start + _CHUNK]
        some = (some - some.mean(axis=0)).reshape(frames, -1)
        spectrum = np.fft.rfft(some, 2 * frames, axis=0)
        products = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:frames].sum(axis=1)
        squares = np.concatenate(([0.0], np.cumsum((some**2).sum(axis=1))))
        lags = np.arange(frames)
        # Σ over t of r(t)² and of r(t + τ)²
        total += squares[frames - lags] + squares[frames] - squares[lags] - 2.0 * products
    return np.maximum(total, 0.0) / (count * (frames - np.arange(frames)))


def diffusion(
    positions: np.ndarray, symbols: Sequence[str], interval: float, fit: tuple[float, float] = FIT
) -> Diffusion:
    """Self-diffusion of each element by the Einstein relation ⟨|Δr|²⟩ = 6 D t.

    Parameters
    ----------
    positions : numpy.ndarray, shape (F, N, 3), Å
        Unwrapped positions at equal intervals, without drift of the centre of mass.
    symbols : sequence of str, length N
    interval : float, ps
        Time between frames.
    fit : tuple of 2 float
        Fractions of the trajectory between which the slope is fitted.

    Raises
    ------
    InputError
        If the shapes do not match, there are too few frames, or a number is invalid.
    """
    check_positive("interval", interval, " in ps")
    names, positions = np.array(list(symbols)), as_numbers("positions", positions)
    shape = positions.shape
    if len(shape) != 3 or shape[1] != len(names):
        expected = f"shape (F, {len(names)}, 3)"
        raise InputError(describe("positions", f"shape {shape}", expected))
    elements = tuple(sorted(set(names.tolist())))
    squares = np.array([mean_square_displacement(positions[:, names == e]) for e in elements])
    times = interval * np.arange(shape[0])
    slopes = np.array([_slope(times, each, fit) for each in squares])
    return Diffusion(elements, times, squares, slopes / 6.0)


def moving_dipole(charges: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Change of the dipole since the first frame from displacements of charges, shape (F, 3), e Å.

    It is Σ ½(Z(t) + Z(t + Δt))·Δr over atoms and steps, which is independent of the choice of
    images in a cell. With Born charges it is the change of the dipole including charge transfer (to
    third order in Δr). With atomic charges it neglects charge transfer.

    Parameters
    ----------
    charges : numpy.ndarray, shape (F, N) or (F, N, 3, 3), e
        Atomic charges, or Born effective charges.
    positions : numpy.ndarray, shape (F, N, 3), Å
        Unwrapped positions.

    Raises
    ------
    InputError
        If the shapes do not match.
    """
    values, points = as_numbers("charges", charges), as_numbers("positions", positions)
    shapes = points.shape[:2], (*points.shape[:2], 3, 3)
    if points.ndim != 3 or points.shape[2] != 3 or values.shape not in shapes:
        got = f"shapes {values.shape} and {points.shape}"
        expected = "shapes (F, N) or (F, N, 3, 3), and (F, N, 3)"
        raise InputError(describe("charges, positions", got, expected))
    means, steps = 0.5 * (values[1:] + values[:-1]), np.diff(points, axis=0)
    indices = "fi,fia->fa" if values.ndim == 2 else "fiab,fib->fa"
    moves = np.einsum(indices, means, steps)
    return np.concatenate((np.zeros((1, 3)), np.cumsum(moves, axis=0)))


def ionic_conductivity(
    dipoles: np.ndarray,
    interval: float,
    volume: float,
    temperature: float,
    fit: tuple[float, float] = FIT,
) -> float:
    """Ionic conductivity, S/m, by the Einstein relation ⟨|ΔM|²⟩ = 6 V k_B T σ t.

    It includes correlations between different ions, which the Nernst-Einstein relation neglects.

    Parameters
    ----------
    dipoles : numpy.ndarray, shape (F, 3), e Å
        Result of :func:`moving_dipole`.
    interval : float, ps
    volume : float, Å³
    temperature : float, K
    fit
        As for :func:`diffusion`, also for errors.
    """
    check_positive("interval", interval, " in ps")
    check_positive("volume", volume, " in Å³")
    check_positive("temperature", temperature, " in K")
    squares = mean_square_displacement(as_numbers("dipoles", dipoles)[:, None])
    slope = _slope(interval * np.arange(len(squares)), squares, fit)
    return _SIEMENS_PER_METRE * slope / (6.0 * volume * BOLTZMANN * temperature)


def dielectric_constant(
    dipoles: np.ndarray, volume: float, temperature: float, electronic: float = 1.0
) -> np.ndarray:
    """Static dielectric constant from the first n frames, for each n, shape (F,).

    For the tin-foil boundary conditions of the Coulomb sums of this package it is
    ε = ε_∞ + 4π k_e (⟨M²⟩ − ⟨M⟩²)/(3 V k_B T) (Neumann 1983, doi:10.1080/00268978300102721). It is
    not meaningful in ionic conductors.

    Parameters
    ----------
    dipoles : numpy.ndarray, shape (F, 3), e Å
        Dipole of the cell, or its change (:func:`moving_dipole`).
    volume : float, Å³
    temperature : float, K
    electronic : float
        ε_∞, see :func:`electronic_dielectric_constant`.

    Raises
    ------
    InputError
        If the shape is wrong, or a number is invalid.
    """
    check_positive("volume", volume, " in Å³")
    check_positive("temperature", temperature, " in K")
    values = as_numbers("dipoles", dipoles)
    if values.ndim != 2 or values.shape[1] != 3 or not np.isfinite(values).all():
        expected = "finite numbers of shape (F, 3)"
        raise InputError(describe("dipoles", f"shape {values.shape}", expected))
    values = values - values.mean(axis=0)  # reduces rounding errors
    counts = np.arange(1, len(values) + 1)
    squares = np.cumsum((values**2).sum(axis=1)) / counts
    means = np.cumsum(values, axis=0) / counts[:, None]
    variance = squares - (means**2).sum(axis=1)
    factor = 4.0 * math.pi * COULOMB_CONSTANT / (3.0 * volume * BOLTZMANN * temperature)
    return electronic + factor * variance


def electronic_dielectric_constant(polarizability: float, volume: float) -> float:
    """ε_∞ by the Clausius-Mossotti relation (ε − 1)/(ε + 2) = 4π k_e α/(3 V).

    Parameters
    ----------
    polarizability : float, e Å²/V
        Sum of the isotropic polarisabilities (a third of the trace of
        :attr:`.Response.polarizability`) of all molecules in the volume, each in isolation.
    volume : float, Å³

    Raises
    ------
    InputError
        If a number is not positive, or the polarisability is too large for a solution.
    """
    check_positive("polarizability", polarizability, " in e Å²/V")
    check_positive("volume", volume, " in Å³")
    x = 4.0 * math.pi * COULOMB_CONSTANT * polarizability / (3.0 * volume)
    if x >= 1.0:
        expected = "less than three quarters of the volume over π k_e"
        raise InputError(describe("polarizability", polarizability, expected))
    return (1.0 + 2.0 * x) / (1.0 - x)


def _slope(times: np.ndarray, values: np.ndarray, fit: tuple[float, float]) -> float:
    """Slope of a line through the values between two fractions of the times."""
    first, last = fit
    if not 0.0 <= first < last <= 1.0:
        raise InputError(describe("fit", fit, "two fractions from 0 to 1 in their order"))
    low, high = math.ceil(first * (len(times) - 1)), math.floor(last * (len(times) - 1))
    if high - low < 2:
        got = f"{high - low + 1} of {len(times)} frames"
        raise InputError(describe("fit", got, "at least 3 frames"))
    return float(np.polyfit(times[low : high + 1], values[low : high + 1], 1)[0])
