"""Analysis of trajectories, and pictures of results.

The public names are loaded on first use (PEP 562): mdtraj and ASE cost nothing before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analyze import TrajectoryAnalysis, analyze_trajectory
    from .charges import ChargeDistributions, charge_distributions
    from .properties import TrajectoryProperties, recompute
    from .radial import RadialDistributions, radial_distributions
    from .spectra import InfraredSpectrum, infrared_spectrum
    from .trajectories import Frame, StoredTrajectory, open_trajectory
    from .trajectory_plots import (
        plot_charge_distributions,
        plot_properties,
        plot_radial_distributions,
    )

_HOME = {
    "ChargeDistributions": "charges",
    "Frame": "trajectories",
    "InfraredSpectrum": "spectra",
    "RadialDistributions": "radial",
    "StoredTrajectory": "trajectories",
    "TrajectoryAnalysis": "analyze",
    "TrajectoryProperties": "properties",
    "analyze_trajectory": "analyze",
    "charge_distributions": "charges",
    "infrared_spectrum": "spectra",
    "open_trajectory": "trajectories",
    "plot_charge_distributions": "trajectory_plots",
    "plot_properties": "trajectory_plots",
    "plot_radial_distributions": "trajectory_plots",
    "radial_distributions": "radial",
    "recompute": "properties",
}

__all__ = [
    "ChargeDistributions",
    "Frame",
    "InfraredSpectrum",
    "RadialDistributions",
    "StoredTrajectory",
    "TrajectoryAnalysis",
    "TrajectoryProperties",
    "analyze_trajectory",
    "charge_distributions",
    "infrared_spectrum",
    "open_trajectory",
    "plot_charge_distributions",
    "plot_properties",
    "plot_radial_distributions",
    "radial_distributions",
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
