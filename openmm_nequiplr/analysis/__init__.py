"""Analysis of trajectories, and plots of results.

The public names are loaded on first use (PEP 562), which defers the import of mdtraj and ASE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import on_first_use

if TYPE_CHECKING:
    from .analyze import TrajectoryAnalysis, analyze_trajectory
    from .charges import ChargeDistributions, charge_distributions
    from .dynamics import Dynamics, analyze_dynamics, plot_dynamics
    from .properties import TrajectoryProperties
    from .radial import RadialDistributions, radial_distributions
    from .recomputation import recompute
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


__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "analyze": ["TrajectoryAnalysis", "analyze_trajectory"],
        "charges": ["ChargeDistributions", "charge_distributions"],
        "dynamics": ["Dynamics", "analyze_dynamics", "plot_dynamics"],
        "properties": ["TrajectoryProperties"],
        "radial": ["RadialDistributions", "radial_distributions"],
        "recomputation": ["recompute"],
        "spectra": ["InfraredSpectrum", "RamanSpectrum", "infrared_spectrum", "raman_spectrum"],
        "trajectories": ["Frame", "StoredTrajectory", "open_trajectory"],
        "trajectory_plots": [
            "plot_charge_distributions", "plot_properties", "plot_radial_distributions",
        ],
        "transport": [
            "Diffusion", "dielectric_constant", "diffusion", "electronic_dielectric_constant",
            "ionic_conductivity", "mean_square_displacement", "moving_dipole",
        ],
    },
)  # fmt: skip
