"""Complete analysis of a trajectory, written as arrays, tables and plots to a directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..console import say
from ..describe import describe_atoms, describe_charges, describe_conditions, describe_threads
from ..errors import InputError, describe
from ..model import NequIPLRPotential, load_model
from ..model.options import EvaluationOptions
from ..model.solving import SolverOptions
from ..threads import SMALL, limited_threads
from .charges import ChargeDistributions, charge_distributions, save_charge_distributions
from .dynamics import Dynamics, analyze_dynamics, check_times, report_dynamics, save_dynamics
from .properties import TrajectoryProperties
from .radial import RadialDistributions, radial_distributions, save_radial
from .recomputation import recompute
from .trajectories import StoredTrajectory, TrajectoryLike, open_trajectory, recorded_charges
from .trajectory_plots import (
    plot_charge_distributions,
    plot_properties,
    plot_radial_distributions,
)


@dataclass(frozen=True)
class TrajectoryAnalysis:
    """Results of :func:`analyze_trajectory`.

    Parameters
    ----------
    output : path
        Directory of the files.
    properties : TrajectoryProperties
    radial : RadialDistributions
    charges : ChargeDistributions
    recorded_difference : float or None, e
        Largest difference of a charge from the one recorded during the run; None without records.
    dynamics : Dynamics or None
        None unless requested.
    """

    output: Path
    properties: TrajectoryProperties
    radial: RadialDistributions
    charges: ChargeDistributions
    recorded_difference: float | None
    dynamics: Dynamics | None = None


def analyze_trajectory(
    model: NequIPLRPotential | str | Path,
    trajectory: TrajectoryLike,
    topology: Any = None,
    output: str | Path | None = None,
    *,
    stride: int = 1,
    total_charge: float | None = None,
    forces: bool = False,
    response: bool = False,
    dynamics: bool = False,
    temperature: float | None = None,
    interval: float | None = None,
    r_max: float = 10.0,
    bin_width: float = 0.05,
    resume: bool = False,
    threads: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> TrajectoryAnalysis:
    """Recompute charges, dipoles and energies, compute radial distributions, and write the results.

    The files are ``properties.npz`` (:class:`TrajectoryProperties`), ``properties.csv``,
    ``radial.csv``, ``charges.csv`` (distributions by element) and a ``.png`` of each. With
    ``dynamics`` there are also ``diffusion.csv``, ``spectra.csv`` and ``dynamics.png``.

    Parameters
    ----------
    model : NequIPLRPotential, path or str
    trajectory : path, mdtraj.Trajectory or sequence of ase.Atoms
        A file, or the output directory of ``nequiplr md``.
    topology : path, mdtraj.Topology or mdtraj.Trajectory, optional
        See :func:`open_trajectory`.
    output : path, optional
        Directory for the results; by default ``analysis``, in the directory of a run.
    stride, total_charge, forces, response, resume, **options
        See :func:`recompute`.
    dynamics : bool
        Whether to compute diffusion coefficients, infrared and (with ``response``) Raman spectra
        from the time series. In a cell at a known temperature these include the conductivity and
        the dielectric constant.
    temperature, interval
        See :func:`analyze_dynamics`.
    r_max, bin_width : float, Å
        See :func:`radial_distributions`.
    threads : int, optional
        Threads of torch; by default one below 500 atoms.
    quiet : bool
        Print nothing.

    Raises
    ------
    InputError
        If ``output`` already contains results and ``resume`` is false, or for the reasons of the
        functions above.
    """
    source = open_trajectory(trajectory, topology, stride)
    if output is None:
        inside = isinstance(trajectory, str | Path) and Path(trajectory).is_dir()
        output = Path(str(trajectory)) / "analysis" if inside else Path("analysis")
    folder = Path(output)
    results = folder / "properties.npz"
    if results.exists() and not resume:
        expected = "a directory without results, or resume"
        raise InputError(describe("output", str(folder), expected))
    loaded = model if isinstance(model, NequIPLRPotential) else load_model(model)
    threads = threads or (1 if source.num_atoms < SMALL else torch.get_num_threads())
    if not quiet:
        say(_headline(loaded, source, total_charge, EvaluationOptions(**options), threads))
    if dynamics:  # fail now rather than after the evaluation
        first = [frame.time for frame in islice(source.frames(), 2)]
        check_times(np.array(first), temperature, interval)
    radial = radial_distributions(source, r_max=r_max, bin_width=bin_width)
    folder.mkdir(parents=True, exist_ok=True)
    with limited_threads(threads):
        properties = recompute(
            loaded,
            source,
            total_charge=total_charge,
            forces=forces,
            response=response,
            output=results,
            resume=resume,
            **options,
        )
    charges = charge_distributions(properties.charges, properties.symbols)
    _write(folder, properties, radial, charges)
    difference = _recorded_difference(source, properties)
    series = None
    if dynamics:
        series = analyze_dynamics(properties, source, temperature=temperature, interval=interval)
        save_dynamics(series, folder)
    analysis = TrajectoryAnalysis(folder, properties, radial, charges, difference, series)
    if not quiet:
        say("\n".join(_report(analysis)))
    return analysis


def _headline(
    model: NequIPLRPotential,
    source: StoredTrajectory,
    total_charge: float | None,
    solver: SolverOptions,
    threads: int,
) -> str:
    """Line that describes the system and the evaluation, with the box of the first frame."""
    first = next(source.frames(), None)
    box = None if first is None else first.cell
    told = source.total_charge if total_charge is None else total_charge
    slab = first is not None and first.slab
    atoms = describe_atoms(source.symbols, told or 0.0, box, told is None, slab=slab)
    field = None if first is None else first.electric_field
    atoms += describe_conditions(replace(source.conditions, electric_field=field))
    periodic = model.config.sees_images(box is not None)
    charges = describe_charges(model.config, source.num_atoms, periodic, solver)
    return f"{atoms}, {describe_threads(threads)}, {charges}"


def _write(
    folder: Path,
    properties: TrajectoryProperties,
    radial: RadialDistributions,
    charges: ChargeDistributions,
) -> None:
    save_properties_table(properties, folder / "properties.csv")
    save_radial(radial, folder / "radial.csv")
    save_charge_distributions(charges, folder / "charges.csv")
    plot_properties(properties, folder / "properties.png")
    plot_radial_distributions(radial, folder / "radial.png")
    plot_charge_distributions(charges, folder / "charges.png")


def save_properties_table(properties: TrajectoryProperties, path: str | Path) -> None:
    """Write a CSV table with a row for each frame and the mean charge of each element."""
    names = ["frame", "time_ps", "energy_eV", "volume_A3"]
    names += [f"dipole_{axis}_eA" for axis in "xyz"]
    columns = [properties.frames, properties.times, properties.energies, properties.volumes]
    columns += list(properties.dipoles.T)
    symbols = np.array(properties.symbols)
    for element in sorted(set(properties.symbols)):
        names.append(f"charge_{element}_e")
        columns.append(properties.charges[:, symbols == element].mean(axis=1))
    formats = ["%d", "%.6f", "%.8f", "%.4f"] + ["%.8f"] * (len(columns) - 4)
    table = np.stack(columns, axis=1)
    np.savetxt(path, table, formats, ",", header=",".join(names), comments="", encoding="utf-8")


def _recorded_difference(
    source: StoredTrajectory, properties: TrajectoryProperties
) -> float | None:
    if source.recorded is None:
        return None
    recorded = recorded_charges(source.recorded)["charges"]
    both = properties.frames < len(recorded)
    if not both.any() or recorded.shape[1] != source.num_atoms:
        return None
    there = recorded[properties.frames[both]]
    return float(np.abs(properties.charges[both] - there).max())


def _report(analysis: TrajectoryAnalysis) -> list[str]:
    properties, charges = analysis.properties, analysis.charges
    energies = properties.energies
    lines = [
        f"{properties.num_frames} frames of {len(properties.symbols)} atoms, "
        f"total charge {properties.total_charge:+g} e",
        f"energy {energies.mean():.4f} ± {energies.std():.4f} eV",
    ]
    for element, mean, deviation in zip(
        charges.elements, charges.mean, charges.deviation, strict=True
    ):
        lines.append(f"charge of {element:<2} {mean:+.4f} ± {deviation:.4f} e")
    if analysis.recorded_difference is not None:
        lines.append(
            "largest difference from the charges recorded in the run: "
            f"{analysis.recorded_difference:.1e} e"
        )
    if analysis.dynamics is not None:
        lines += report_dynamics(analysis.dynamics)
    return [*lines, f"results in {analysis.output}"]
