"""The commands ``md`` and ``analyze``."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Interrupted
from .arguments import (
    choice,
    evaluation_arguments,
    flag,
    given,
    model_argument,
    option,
    structure_argument,
    total_charge_argument,
)


def md_arguments(parser: argparse.ArgumentParser) -> None:
    model_argument(parser)
    structure_argument(parser, " (default: the start structure of a shipped model)", nargs="?")
    run = parser.add_argument_group("run")
    choice(run, "--ensemble", ("nve", "nvt", "npt"), "(default: nvt)")
    option(run, "--steps", "N", "time steps to do (default: 1000)")
    option(run, "--timestep", "FS", "in fs (default: 1)")
    option(run, "--temperature", "K", "in K (default: 300)")
    option(run, "--friction", "PER_PS", "in 1/ps (default: 1)")
    option(run, "--pressure", "BAR", "in bar (default: 1)")
    changes = "what may change in npt: the volume, the edges, the shape (default: isotropic)"
    choice(run, "--barostat", ("isotropic", "anisotropic", "flexible"), changes)
    option(run, "--barostat-axes", "AXES", "of the anisotropic barostat (default: xyz)")
    option(run, "--barostat-interval", "N", "steps between moves (default: 25)")
    total_charge_argument(run, "structure")
    field = "uniform field on an isolated structure, three components in V/nm"
    option(run, "--electric-field", "V_PER_NM", field, nargs=3, type=float)
    flag(run, "--minimize", "relax the structure first")
    option(run, "--seed", "N", "of velocities, thermostat, barostat")
    force = parser.add_argument_group("forces")
    option(force, "--platform", "P", "Reference, CPU, OpenCL or CUDA")
    where = "where the Coulomb energy is computed: OpenMM's PME or torch (default: auto)"
    choice(force, "--long-range", ("auto", "openmm", "graph"), where)
    option(force, "--ewald-tolerance", "X", "of the PME")
    evaluation_arguments(force, threads="of torch and platform CPU")
    committee = parser.add_argument_group("committee")
    models = "other models, or a committee's directory, whose spread with MODEL is reported"
    option(committee, "--committee", "MODEL", models, nargs="+")
    largest = "largest committee standard deviation of a force allowed"
    option(committee, "--spread-threshold", "EV_PER_ANGSTROM", largest)
    beyond = "beyond the threshold, save the frame, or save it and end the run (default: save)"
    choice(committee, "--on-spread", ("save", "stop"), beyond)
    files = parser.add_argument_group("files")
    option(files, "--output", "DIR", "for results (default: md)")
    restart = "continue the run whose results are in --output; what is not given stays as it was"
    flag(files, "--restart", restart)
    option(files, "--report-interval", "N", "steps between frames")
    option(files, "--checkpoint-interval", "N", "steps between checkpoints")
    unstable = "when temperature, distances, charges or energy leave all bounds (default: stop)"
    choice(files, "--on-unstable", ("stop", "warn"), unstable)
    option(files, "--charge-of", "ELEMENT", "whose charge the picture shows, else the rarest")
    flag(files, "--quiet", "print nothing")


def md(arguments: argparse.Namespace) -> None:
    # threads that wait sleep: spinning beside a busy process costs a step many times its time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _terminable():
        from ..simulation.md import continued_options, run_md

        run_md(continued_options(**given(arguments)))


@contextmanager
def _terminable() -> Iterator[None]:
    """Make an error of SIGTERM, as of SIGINT, until the run handles it."""

    def receive(number: int, frame: object) -> None:
        raise Interrupted(f"terminated by {signal.Signals(number).name}", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def analyze_arguments(parser: argparse.ArgumentParser) -> None:
    model_argument(parser)
    trajectory = "output directory of nequiplr md, or a file that mdtraj or ASE reads"
    option(parser, "trajectory", "TRAJECTORY", trajectory)
    option(parser, "--topology", "FILE", "for formats that hold coordinates alone (DCD, XTC …)")
    option(parser, "--output", "DIR", "for results; analysis, in that of a run")
    option(parser, "--stride", "N", "frames from one to the next")
    total_charge_argument(parser, "trajectory")
    flag(parser, "--forces", "keep forces as well")
    option(parser, "--r-max", "ANGSTROM", "longest distance of pairs")
    option(parser, "--bin-width", "ANGSTROM", "of distances")
    flag(parser, "--resume", "go on behind the last frame in --output")
    evaluation_arguments(parser)
    flag(parser, "--quiet", "print nothing")


def analyze(arguments: argparse.Namespace) -> None:
    from ..analysis import analyze_trajectory

    analyze_trajectory(**given(arguments))
