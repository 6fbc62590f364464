"""Analysis of trajectories, and pictures of results.

The public names are loaded on first use (PEP 562): mdtraj and ASE cost nothing before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analyze import TrajectoryAnalysis, analyze_trajectory
    from .charges import ChargeDistributions, charge_distributions
    from .dynamics import Dynamics, analyze_dynamics, plot_dynamics
    from .properties import TrajectoryProperties, recompute
    from .radial import RadialDistributions, radial_distributions
    from .spectra import InfraredSpectrum, RamanSpectrum, infrared_spectrum, raman_spectrum
    from .trajectories import Frame, StoredTrajectory, open_trajectory
    from .trajectory_plots import (
        plot_charge_distributions,
        plot_properties,
        plot_radial_distributions,
    )
    from .transport import (
        Diffusion,
        dielectric_constant,
        diffusion,
        electronic_dielectric_constant,
        ionic_conductivity,
        mean_square_displacement,
        moving_dipole,
    )

_HOME = {
    "ChargeDistributions": "charges",
    "Diffusion": "transport",
    "Dynamics": "dynamics",
    "Frame": "trajectories",
    "InfraredSpectrum": "spectra",
    "RadialDistributions": "radial",
    "RamanSpectrum": "spectra",
    "StoredTrajectory": "trajectories",
    "TrajectoryAnalysis": "analyze",
    "TrajectoryProperties": "properties",
    "analyze_dynamics": "dynamics",
    "analyze_trajectory": "analyze",
    "charge_distributions": "charges",
    "dielectric_constant": "transport",
    "diffusion": "transport",
    "electronic_dielectric_constant": "transport",
    "infrared_spectrum": "spectra",
    "ionic_conductivity": "transport",
    "mean_square_displacement": "transport",
    "moving_dipole": "transport",
    "open_trajectory": "trajectories",
    "plot_charge_distributions": "trajectory_plots",
    "plot_dynamics": "dynamics",
    "plot_properties": "trajectory_plots",
    "plot_radial_distributions": "trajectory_plots",
    "radial_distributions": "radial",
    "raman_spectrum": "spectra",
    "recompute": "properties",
}

__all__ = [
    "ChargeDistributions",
    "Diffusion",
    "Dynamics",
    "Frame",
    "InfraredSpectrum",
    "RadialDistributions",
    "RamanSpectrum",
    "StoredTrajectory",
    "TrajectoryAnalysis",
    "TrajectoryProperties",
    "analyze_dynamics",
    "analyze_trajectory",
    "charge_distributions",
    "dielectric_constant",
    "diffusion",
    "electronic_dielectric_constant",
    "infrared_spectrum",
    "ionic_conductivity",
    "mean_square_displacement",
    "moving_dipole",
    "open_trajectory",
    "plot_charge_distributions",
    "plot_dynamics",
    "plot_properties",
    "plot_radial_distributions",
    "radial_distributions",
    "raman_spectrum",
    "recompute",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
