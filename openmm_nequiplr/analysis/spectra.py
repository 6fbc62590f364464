"""Infrared and Raman spectra from dipoles and polarisabilities along a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checks import as_numbers, check_positive
from ..errors import InputError, describe

#: Speed of light, cm/ps.
LIGHT = 0.0299792458
# Smallest number of frames for a meaningful spectrum.
_FEWEST = 16


@dataclass(frozen=True)
class InfraredSpectrum:
    """Infrared spectrum at F frequencies.

    Parameters
    ----------
    wavenumbers : numpy.ndarray, shape (F,), 1/cm
    intensity : numpy.ndarray, shape (F,)
        Power spectrum of dμ/dt, e²Å²/ps² per 1/cm. Up to constants it is the absorption with the
        harmonic quantum correction.
    """

    wavenumbers: np.ndarray
    intensity: np.ndarray


def infrared_spectrum(
    dipoles: np.ndarray, interval: float, resolution: float = 20.0
) -> InfraredSpectrum:
    """Infrared spectrum from the fluctuations of the dipole along a trajectory.

    The power spectrum of dμ/dt is the mean periodogram of overlapping windows (Welch 1967,
    doi:10.1109/TAU.1967.1161901). With the harmonic quantum correction (Ramírez, López-Ciudad,
    Kumar, Marx 2004, doi:10.1063/1.1774986) it is the line shape of the absorption.

    Parameters
    ----------
    dipoles : numpy.ndarray, shape (F, 3), e Å
        Dipoles at equal intervals, continuous in time, such as those of
        :class:`~openmm_nequiplr.ChargeReporter`.
    interval : float, ps
        Time between frames. The highest frequency is 1/(2 · interval); 0.002 ps suffice for bonds
        with hydrogen.
    resolution : float, 1/cm
        Requested resolution. A trajectory too short for it is one window.

    Raises
    ------
    InputError
        If there are too few frames, or a number is not finite or not positive.
    """
    values = _series("dipoles", dipoles, (3,))
    wavenumbers, power = _power(values, interval, resolution)
    return InfraredSpectrum(wavenumbers, power.sum(axis=1))


@dataclass(frozen=True)
class RamanSpectrum:
    """Raman spectrum at F frequencies, for 90° scattering.

    Parameters
    ----------
    wavenumbers : numpy.ndarray, shape (F,), 1/cm
    intensity : numpy.ndarray, shape (F,)
        45 a'² + 7 γ'² from the power spectra of the time derivatives of the mean polarisability a
        and its anisotropy γ, (e Å²/V)²/ps² per 1/cm. It is the line shape with the harmonic quantum
        correction, up to constants and the dependence on the exciting light.
    depolarization : numpy.ndarray, shape (F,)
        Depolarisation ratio 3 γ'²/(45 a'² + 4 γ'²) for polarised exciting light; ¾ for vibrations
        that are not totally symmetric.
    """

    wavenumbers: np.ndarray
    intensity: np.ndarray
    depolarization: np.ndarray


def raman_spectrum(
    polarizabilities: np.ndarray, interval: float, resolution: float = 20.0
) -> RamanSpectrum:
    """Raman spectrum from the fluctuations of the polarisability along a trajectory.

    Parameters
    ----------
    polarizabilities : numpy.ndarray, shape (F, 3, 3), e Å²/V
        Polarisabilities at equal intervals.
    interval, resolution
        As for :func:`infrared_spectrum`, also for errors.
    """
    tensors = _series("polarizabilities", polarizabilities, (3, 3))
    mean = np.trace(tensors, axis1=1, axis2=2) / 3.0
    rest = tensors - mean[:, None, None] * np.eye(3)
    parts = np.concatenate((mean[:, None], rest.reshape(-1, 9)), axis=1)
    wavenumbers, power = _power(parts, interval, resolution)
    isotropic, anisotropic = power[:, 0], 1.5 * power[:, 1:].sum(axis=1)
    polarized = 45.0 * isotropic + 4.0 * anisotropic
    return RamanSpectrum(
        wavenumbers,
        polarized + 3.0 * anisotropic,
        3.0 * anisotropic / np.maximum(polarized, 1e-300),
    )


def _series(name: str, given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = as_numbers(name, given)
    if values.shape[1:] != shape or len(values) < _FEWEST:
        letters = ", ".join(map(str, ("F", *shape)))
        expected = f"shape ({letters}) with F of at least {_FEWEST}"
        raise InputError(describe(name, f"shape {values.shape}", expected))
    if not np.isfinite(values).all():
        raise InputError(describe(name, "NaN or infinity", "finite numbers"))
    return values


def _power(values: np.ndarray, interval: float, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers, shape (F,), and power spectra of the time derivatives, shape (F, K)."""
    from scipy.signal import welch

    check_positive("interval", interval, " in ps")
    check_positive("resolution", resolution, " in 1/cm")
    rates = np.diff(values, axis=0) / interval
    window = min(len(rates), max(_FEWEST - 1, round(1.0 / (LIGHT * resolution * interval))))
    frequency, power = welch(rates, 1.0 / interval, "hann", window, axis=0)
    # a finite difference over Δt reduces amplitudes by sinc(ν Δt)
    power = power / np.sinc(frequency * interval)[:, None] ** 2
    return frequency / LIGHT, power * LIGHT
