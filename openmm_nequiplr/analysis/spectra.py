"""Infrared and Raman spectra from dipoles and polarisabilities along a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checks import check_positive
from ..errors import InputError, describe

#: Speed of light, cm/ps.
LIGHT = 0.0299792458
# Shortest window: of fewer frames there is no spectrum to speak of.
_FEWEST = 16


@dataclass(frozen=True)
class InfraredSpectrum:
    """An infrared spectrum of F frequencies.

    Parameters
    ----------
    wavenumbers : numpy.ndarray, shape (F,), 1/cm
    intensity : numpy.ndarray, shape (F,)
        Power of dμ/dt, e²Å²/ps² per 1/cm: the absorption with the harmonic quantum correction, up
        to constants.
    """

    wavenumbers: np.ndarray
    intensity: np.ndarray


def infrared_spectrum(
    dipoles: np.ndarray, interval: float, resolution: float = 20.0
) -> InfraredSpectrum:
    """Spectrum of the fluctuations of a dipole, as ``ChargeReporter`` writes it.

    Welch's method (1967, doi:10.1109/TAU.1967.1161901): the mean periodogram of overlapping windows
    of dμ/dt. With the harmonic correction (Ramírez, López-Ciudad, Kumar, Marx 2004,
    doi:10.1063/1.1774986) this is the line shape of the absorption.

    Parameters
    ----------
    dipoles : array, shape (F, 3), e Å
        At equal intervals; without jumps, as those of :class:`~openmm_nequiplr.ChargeReporter`.
    interval : float, ps
        Between frames. Frequencies up to 1/(2 · interval) are seen: 0.002 ps serve bonds with
        hydrogen.
    resolution : float, 1/cm
        Wished for; the whole trajectory is one window where it is too short for it.

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
    """A Raman spectrum of F frequencies, for light scattered at right angles.

    Parameters
    ----------
    wavenumbers : numpy.ndarray, shape (F,), 1/cm
    intensity : numpy.ndarray, shape (F,)
        45 a'² + 7 γ'², of the power of the rates of change of the mean polarisability a and its
        anisotropy γ, (e Å²/V)²/ps² per 1/cm: the line shape with the harmonic quantum correction,
        up to constants and the dependence on the exciting light.
    depolarization : numpy.ndarray, shape (F,)
        3 γ'²/(45 a'² + 4 γ'²): of light that was polarised; ¾ where a vibration is not totally
        symmetric.
    """

    wavenumbers: np.ndarray
    intensity: np.ndarray
    depolarization: np.ndarray


def raman_spectrum(
    polarizabilities: np.ndarray, interval: float, resolution: float = 20.0
) -> RamanSpectrum:
    """Spectrum of the fluctuations of a polarisability; see :func:`infrared_spectrum`.

    Parameters
    ----------
    polarizabilities : array, shape (F, 3, 3), e Å²/V
        At equal intervals.
    interval : float, ps
    resolution : float, 1/cm

    Raises
    ------
    InputError
        As of :func:`infrared_spectrum`.
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
    values = np.asarray(given, dtype=np.float64)
    if values.shape[1:] != shape or len(values) < _FEWEST:
        letters = ", ".join(map(str, ("F", *shape)))
        expected = f"shape ({letters}) with F of at least {_FEWEST}"
        raise InputError(describe(name, f"shape {values.shape}", expected))
    if not np.isfinite(values).all():
        raise InputError(describe(name, "NaN or infinity", "finite numbers"))
    return values


def _power(values: np.ndarray, interval: float, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers, shape (F,), and the power of the derivatives of values, shape (F, K)."""
    from scipy.signal import welch

    check_positive("interval", interval, " in ps")
    check_positive("resolution", resolution, " in 1/cm")
    rates = np.diff(values, axis=0) / interval
    window = min(len(rates), max(_FEWEST - 1, round(1.0 / (LIGHT * resolution * interval))))
    frequency, power = welch(rates, 1.0 / interval, "hann", window, axis=0)
    # a difference over an interval sees a fast motion damped by sinc(ν Δt)
    power = power / np.sinc(frequency * interval)[:, None] ** 2
    return frequency / LIGHT, power * LIGHT
