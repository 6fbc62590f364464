"""Properties from time series: diffusion, spectra, conductivity, dielectric constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks import check_positive
from ..errors import InputError, describe
from ..lattice import continued
from .figures import GREY, legend_above, new_figure, save_figure
from .properties import TrajectoryProperties
from .spectra import InfraredSpectrum, RamanSpectrum, infrared_spectrum, raman_spectrum
from .stored import StoredTrajectory
from .transport import (
    Diffusion,
    dielectric_constant,
    diffusion,
    ionic_conductivity,
    moving_dipole,
)

# Relative tolerance of equal intervals, as times are stored with few digits.
_SAME_INTERVAL = 0.02


@dataclass(frozen=True)
class Dynamics:
    """Results of :func:`analyze_dynamics`, for F frames.

    Parameters
    ----------
    interval : float, ps
        Time between frames.
    dipoles : numpy.ndarray, float64, shape (F, 3), e Å
        Dipole used for the spectrum, the conductivity and the dielectric constant. It is the change
        of the dipole by Born charges if these are known. Otherwise it is the dipole of an isolated
        structure, or the dipole from displacements of atomic charges in a cell.
    diffusion : Diffusion
    infrared : InfraredSpectrum
    raman : RamanSpectrum or None
        None without polarisabilities.
    conductivity : float or None, S/m
        None without a cell or a temperature.
    dielectric : numpy.ndarray or None, float64, shape (F,)
        Static dielectric constant from the first n frames, without the electronic part; None
        without a cell or a temperature.
    """

    interval: float
    dipoles: np.ndarray
    diffusion: Diffusion
    infrared: InfraredSpectrum
    raman: RamanSpectrum | None
    conductivity: float | None
    dielectric: np.ndarray | None


def analyze_dynamics(
    properties: TrajectoryProperties,
    source: StoredTrajectory,
    *,
    temperature: float | None = None,
    interval: float | None = None,
    resolution: float = 20.0,
) -> Dynamics:
    """Compute diffusion, spectra and, at a given temperature, conductivity and dielectric constant.

    The positions of all frames are held in memory.

    Parameters
    ----------
    properties : TrajectoryProperties
        Result of :func:`recompute` for all frames of ``source``.
    source : StoredTrajectory
    temperature : float, optional, K
    interval : float, optional, ps
        Time between frames; by default from the trajectory.
    resolution : float, 1/cm
        Resolution of the spectra.

    Raises
    ------
    InputError
        If the frames are not equidistant in time, too few, or not those of ``source``.
    """
    step = check_times(properties.times, temperature, interval)
    positions = unwrapped(source)
    if len(positions) != properties.num_frames:
        got = f"{properties.num_frames} frames"
        expected = f"those of the {len(positions)} frames of the trajectory"
        raise InputError(describe("properties", got, expected))
    periodic = bool(np.isfinite(properties.volumes).all())
    if properties.born_dipoles is not None:
        dipoles = properties.born_dipoles
    else:
        dipoles = moving_dipole(properties.charges, positions) if periodic else properties.dipoles
    conductivity, dielectric, raman = None, None, None
    if temperature is not None and periodic:
        volume = float(properties.volumes.mean())
        conductivity = ionic_conductivity(dipoles, step, volume, temperature)
        dielectric = dielectric_constant(dipoles, volume, temperature)
    alpha = properties.polarizabilities
    if alpha is not None and np.isfinite(alpha).all():
        raman = raman_spectrum(alpha, step, resolution)
    return Dynamics(
        interval=step,
        dipoles=dipoles,
        diffusion=diffusion(positions, properties.symbols, step),
        infrared=infrared_spectrum(dipoles, step, resolution),
        raman=raman,
        conductivity=conductivity,
        dielectric=dielectric,
    )


def unwrapped(source: StoredTrajectory) -> np.ndarray:
    """Unwrapped positions of all frames, continuous in time, shape (F, N, 3), Å."""
    rows: list[np.ndarray] = []
    cell = None
    for frame in source.frames():
        positions = frame.positions
        if rows and cell is not None and frame.cell is not None:
            positions = continued(positions, frame.cell, rows[-1], cell)
        rows.append(positions)
        cell = frame.cell
    return np.array(rows)


def check_times(times: np.ndarray, temperature: float | None, interval: float | None) -> float:
    """Time between equidistant frames, ps.

    Raises
    ------
    InputError
        If the frames are not equidistant, or the temperature or the interval is invalid.
    """
    if temperature is not None:
        check_positive("temperature", temperature, " in K")
    if interval is not None:
        check_positive("interval", interval, " in ps")
        return float(interval)
    steps = np.diff(times)
    expected = "frames at equal intervals (set --interval, or interval)"
    if not len(steps) or not np.isfinite(steps).all():
        raise InputError(describe("interval", "no times of the frames", expected))
    if np.ptp(steps) > _SAME_INTERVAL * abs(steps.mean()):
        got = f"frames {steps.min():g} to {steps.max():g} ps apart"
        raise InputError(describe("interval", got, expected))
    return float(steps.mean())


def report_dynamics(dynamics: Dynamics) -> Sequence[str]:
    """Summary of the results, one line each."""
    found = dynamics.diffusion
    lines = [
        f"diffusion of {element:<2} {value:.3g} Å²/ps"
        for element, value in zip(found.elements, found.coefficients, strict=True)
    ]
    if dynamics.conductivity is not None and dynamics.dielectric is not None:
        lines.append(f"conductivity {dynamics.conductivity:.3g} S/m (if ions conduct)")
        lines.append(f"dielectric constant {dynamics.dielectric[-1]:.3g} (if none do)")
    return lines


def save_dynamics(dynamics: Dynamics, folder: Path) -> None:
    """Write ``diffusion.csv``, ``spectra.csv`` and ``dynamics.png``."""
    found = dynamics.diffusion
    names = ["time_ps", *(f"msd_{element}_A2" for element in found.elements)]
    columns = [found.times, *found.squares]
    if dynamics.dielectric is not None:
        names.append("dielectric_constant")
        columns.append(dynamics.dielectric)
    _save_table(folder / "diffusion.csv", names, columns)
    names = ["wavenumber_1/cm", "infrared_e2A2/ps2_cm"]
    columns = [dynamics.infrared.wavenumbers, dynamics.infrared.intensity]
    if dynamics.raman is not None:
        names += ["raman_e2A4/V2ps2_cm", "depolarization"]
        columns += [dynamics.raman.intensity, dynamics.raman.depolarization]
    _save_table(folder / "spectra.csv", names, columns)
    plot_dynamics(dynamics, folder / "dynamics.png")


def _save_table(path: Path, names: list[str], columns: list[np.ndarray]) -> None:
    table, header = np.stack(columns, axis=1), ",".join(names)
    np.savetxt(path, table, "%.8g", ",", header=header, comments="", encoding="utf-8")


def plot_dynamics(dynamics: Dynamics, output: str | Path) -> None:
    """Plot mean square displacements, spectra and, if known, the dielectric constant."""
    panels = 2 + (dynamics.dielectric is not None)
    figure, axes = new_figure(panels, 4.2, 3.2)
    found = dynamics.diffusion
    shown = slice(0, len(found.times) // 2 + 1)  # beyond, there are few pairs of frames
    for element, squares in zip(found.elements, found.squares, strict=True):
        axes[0].plot(found.times[shown], squares[shown], lw=1.2, label=element)
    axes[0].set(xlabel="time (ps)", ylabel="mean square displacement (Å²)")
    legend_above(axes[0], columns=6)
    spectra: list[tuple[str, InfraredSpectrum | RamanSpectrum]] = [("infrared", dynamics.infrared)]
    if dynamics.raman is not None:
        spectra.append(("Raman", dynamics.raman))
    for label, spectrum in spectra:
        highest = max(float(spectrum.intensity.max()), 1e-300)
        axes[1].plot(spectrum.wavenumbers, spectrum.intensity / highest, lw=1.2, label=label)
    axes[1].set(xlabel="wavenumber (1/cm)", ylabel="intensity (highest = 1)", xlim=(0, 4000))
    legend_above(axes[1])
    if dynamics.dielectric is not None:
        axes[2].plot(found.times, dynamics.dielectric, lw=1.2)
        axes[2].axhline(1.0, color=GREY, lw=0.8, zorder=0)
        axes[2].set(xlabel="length of the trajectory (ps)", ylabel="dielectric constant")
    save_figure(figure, output)
