"""Infrared spectra from the dipoles along a trajectory."""

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
    from scipy.signal import welch

    check_positive("interval", interval, " in ps")
    check_positive("resolution", resolution, " in 1/cm")
    values = np.asarray(dipoles, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 3 or len(values) < _FEWEST:
        expected = f"shape (F, 3) with F of at least {_FEWEST}"
        raise InputError(describe("dipoles", f"shape {values.shape}", expected))
    if not np.isfinite(values).all():
        raise InputError(describe("dipoles", "NaN or infinity", "finite numbers"))
    current = np.diff(values, axis=0) / interval
    window = min(len(current), max(_FEWEST - 1, round(1.0 / (LIGHT * resolution * interval))))
    frequency, power = welch(current, 1.0 / interval, "hann", window, axis=0)
    # a difference over an interval sees a fast motion damped by sinc(ν Δt)
    power = power.sum(axis=1) / np.sinc(frequency * interval) ** 2
    return InfraredSpectrum(frequency / LIGHT, power * LIGHT)
