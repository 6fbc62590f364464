"""The commands ``md`` and ``analyze``."""

from __future__ import annotations

import argparse
import os
import signal

from ..errors import Interrupted
from ..signals import handled
from .arguments import (
    charge_groups_arguments,
    choice,
    electrodes_arguments,
    evaluation_arguments,
    flag,
    given,
    model_argument,
    option,
    slab_argument,
    structure_argument,
    total_charge_argument,
)


def md_arguments(parser: argparse.ArgumentParser) -> None:
    model_argument(parser)
    structure_argument(parser, " (default: that of a shipped model)", nargs="?")
    run = parser.add_argument_group("run")
    choice(run, "--ensemble", ("nve", "nvt", "npt"), "statistical ensemble (default: nvt)")
    option(run, "--steps", "N", "number of time steps (default: 1000)")
    option(run, "--timestep", "FS", "time step in fs (default: 1)")
    inner = "cheap model without charges for the inner steps of each time step (RESPA)"
    option(run, "--inner", "MODEL", inner)
    option(run, "--inner-steps", "N", "number of inner steps per time step; 4 if not given")
    mass = (
        "mass of hydrogen in Da, subtracted from the atom it is bonded to; unchanged if not given"
    )
    option(run, "--hydrogen-mass", "DA", mass, type=float)
    option(run, "--temperature", "K", "temperature in K (default: 300)")
    option(run, "--friction", "PER_PS", "friction of the Langevin thermostat in 1/ps (default: 1)")
    option(run, "--pressure", "BAR", "pressure in bar (default: 1)")
    changes = "barostat in npt: scales volume, edge lengths or shape (default: isotropic)"
    choice(run, "--barostat", ("isotropic", "anisotropic", "flexible"), changes)
    option(
        run,
        "--barostat-axes",
        "AXES",
        "axes along which the anisotropic barostat acts (default: xyz)",
    )
    option(run, "--barostat-interval", "N", "steps between moves of the barostat (default: 25)")
    total_charge_argument(run, "structure")
    field = "uniform field on an isolated structure, or along z on a slab; three components in V/nm"
    option(run, "--electric-field", "V_PER_NM", field, nargs=3, type=float)
    charge_groups_arguments(run)
    electrodes_arguments(run)
    slab_argument(run)
    flag(run, "--minimize", "minimise the energy before the run")
    option(
        run,
        "--seed",
        "N",
        "seed of initial velocities, thermostat and barostat; by default random",
    )
    force = parser.add_argument_group("forces")
    option(force, "--platform", "P", "OpenMM platform: Reference, CPU, OpenCL or CUDA")
    where = "where the Coulomb energy is computed: OpenMM or torch (default: auto)"
    choice(force, "--long-range", ("auto", "openmm", "graph"), where)
    option(force, "--ewald-tolerance", "X", "error tolerance of the PME")
    evaluation_arguments(force, threads="number of threads of torch and of the CPU platform")
    committee = parser.add_argument_group("committee")
    models = (
        "other models, or the directory of a committee; the disagreement with MODEL is reported"
    )
    option(committee, "--committee", "MODEL", models, nargs="+")
    largest = "largest committee standard deviation of a force allowed, in eV/Å"
    option(committee, "--spread-threshold", "EV_PER_ANGSTROM", largest)
    beyond = "above the threshold: save the frame, or save it and stop (default: save)"
    choice(committee, "--on-spread", ("save", "stop"), beyond)
    files = parser.add_argument_group("files")
    option(files, "--output", "DIR", "directory for the results (default: md)")
    restart = "continue the run in --output; options that are not given keep their values"
    flag(files, "--restart", restart)
    option(
        files,
        "--report-interval",
        "N",
        "steps between frames of the trajectory, log and charges; by default 10",
    )
    option(
        files,
        "--checkpoint-interval",
        "N",
        "steps between checkpoints; by default ten report intervals",
    )
    unstable = "action if temperature, distances, charges or energy diverge (default: stop)"
    choice(files, "--on-unstable", ("stop", "warn"), unstable)
    option(
        files,
        "--charge-of",
        "ELEMENT",
        "element whose charges are plotted; by default the rarest",
    )
    flag(files, "--quiet", "print nothing")


def md(arguments: argparse.Namespace) -> None:
    # idle threads sleep; spinning while another process is busy slows a step many times
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def receive(number: int, frame: object) -> None:  # until the run handles it
        raise Interrupted(f"terminated by {signal.Signals(number).name}", number)

    with handled(receive, signal.SIGTERM):
        from ..simulation.md import continued_options, run_md

        run_md(continued_options(**given(arguments)))


def analyze_arguments(parser: argparse.ArgumentParser) -> None:
    model_argument(parser)
    trajectory = "output directory of nequiplr md, or any trajectory file that mdtraj or ASE reads"
    option(parser, "trajectory", "TRAJECTORY", trajectory)
    option(
        parser,
        "--topology",
        "FILE",
        "topology, for formats that contain only coordinates (DCD, XTC, …)",
    )
    option(
        parser,
        "--output",
        "DIR",
        "directory for the results; by default analysis, in the directory of the run",
    )
    option(parser, "--stride", "N", "use every Nth frame")
    total_charge_argument(parser, "trajectory")
    flag(parser, "--forces", "also store the forces")
    response = "also compute Born charges and polarisabilities, for the spectra of --dynamics"
    flag(parser, "--response", response)
    series = "compute diffusion and spectra from the time series; see --temperature"
    flag(parser, "--dynamics", series)
    option(
        parser,
        "--temperature",
        "K",
        "temperature of the run, for conductivity and dielectric constant of --dynamics",
    )
    option(parser, "--interval", "PS", "time between frames in ps, if not in the trajectory")
    option(parser, "--r-max", "ANGSTROM", "largest distance of radial distributions, in Å")
    option(parser, "--bin-width", "ANGSTROM", "width of a bin of radial distributions, in Å")
    flag(parser, "--resume", "continue after the last frame in --output")
    evaluation_arguments(parser)
    flag(parser, "--quiet", "print nothing")


def analyze(arguments: argparse.Namespace) -> None:
    from ..analysis import analyze_trajectory

    analyze_trajectory(**given(arguments))
