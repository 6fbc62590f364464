"""The command ``nequiplr``: arguments in, one call of the library per sub-command.

Everything heavy (torch, OpenMM, Lightning) is imported inside the sub-commands, so that
``nequiplr --help`` answers at once. An option that is not given is not passed on: the defaults
live in the library, and a test keeps the ones named in the help texts equal to them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import __version__
from .console import spell_on_streams
from .errors import (
    BackendError,
    InputError,
    Interrupted,
    NequIPLRError,
    NequIPLRWarning,
    describe,
)

EXIT_UNFIT = 1
EXIT_FAILURE = 2
EXIT_INTERRUPTED = 130
_SIGNALLED = 128  # and the number of the signal, as shells have it
_PLUMBING = {"command", "call", "traceback"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 on success, 1 from ``check`` if the model is not fit, 2 after an error (one line on
        standard error), 130 after Ctrl-C, 143 after SIGTERM.
    """
    spell_on_streams()
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        with _warnings_as_lines():
            status = arguments.call(arguments)
    except KeyboardInterrupt as error:
        print(f"nequiplr: {_one_line(error) if error.args else 'interrupted'}", file=sys.stderr)
        return _SIGNALLED + error.number if isinstance(error, Interrupted) else EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILURE
    except Exception as error:
        if arguments.traceback or not _is_clear(error):
            raise
        print(f"nequiplr: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_FAILURE
    return status or 0


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print the package's own warnings as lines on standard error, the same line once."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", NequIPLRWarning)
        default, printed = warnings.showwarning, set()

        def show(message: Any, category: type[Warning], *rest: Any, **named: Any) -> None:
            if not issubclass(category, NequIPLRWarning):
                default(message, category, *rest, **named)
            elif str(message) not in printed:
                printed.add(str(message))
                print(f"nequiplr: note: {' '.join(str(message).split())}", file=sys.stderr)

        warnings.showwarning = show
        yield


def _is_clear(error: Exception) -> bool:
    """Whether the message alone tells the user what to change."""
    # OpenMM re-raises what a Python force raised as an OpenMMException with the same message.
    return isinstance(error, NequIPLRError | OSError) or type(error).__name__ == "OpenMMException"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``nequiplr`` with all its sub-commands."""
    parser = argparse.ArgumentParser(
        prog="nequiplr", description="Train, convert, inspect and run NequIP-LR potentials."
    )
    parser.add_argument("--version", action="version", version=f"nequiplr {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (add_arguments, call, text) in _COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=[common],
            argument_default=argparse.SUPPRESS,
        )
        add_arguments(sub)
        sub.set_defaults(call=call)
    return parser


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by the names under which the library knows them."""
    return {name: value for name, value in vars(arguments).items() if name not in _PLUMBING}


# ---------------------------------------------------------------------------------------- train


_TRAIN_CONFIG = (
    "training YAML file; units of its data: Å and eV in extended XYZ, Bohr and Hartree in RuNNer "
    "files, or as data.units says, e.g. {length: angstrom, energy: eV}"
)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config_path", metavar="CONFIG", type=Path, help=_TRAIN_CONFIG)
    parser.add_argument(
        "--resume",
        action="store_true",
        default=False,
        help="continue from the last checkpoint; refused if data or settings are others",
    )
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: continue although data or settings are others",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="SEED",
        help="train a committee, one model for each seed; one number N stands for 0 … N−1",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="override entries of CONFIG, e.g. --set optimizer.lr=0.005 max_epochs=10",
    )
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        default=True,
        help="leave out the quick stability check at the end (see nequiplr check)",
    )


def _train(arguments: argparse.Namespace) -> None:
    options = _given(arguments)
    options["overrides"] = parse_overrides(options["overrides"])
    check = options.pop("check")
    if "seeds" in options:
        train = _needs_lightning("openmm_nequiplr.training.committee", "train_committee")
    else:
        train = _needs_lightning("openmm_nequiplr.training.run", "train")
    result = train(**options)
    if check and result is not None:
        _check_trained(result)


def _check_trained(result: Any) -> None:
    """Check the models of a training; its success does not depend on what comes out."""
    try:
        from .checking import check_trained

        reports = check_trained(result.model_paths, result.validation_structures)
    except (NequIPLRError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != "openmm":
            raise
        print(f"check: not done ({_one_line(error)})")
        return
    for path, report in zip(result.model_paths, reports, strict=True):
        print(f"{path}: {report.verdict}")


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` assignments; the values are YAML.

    Parameters
    ----------
    assignments : sequence of str
        For example ``["model.l_max=2", "trainer.devices=[0, 1]"]``.

    Returns
    -------
    dict of str to object
        Dotted keys and their values.

    Raises
    ------
    InputError
        If an assignment has no key or no ``=``, or its value is not YAML.
    """
    from .yaml_files import parse_yaml

    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError(describe("--set", assignment, "KEY=VALUE"))
        try:
            overrides[key.strip()] = parse_yaml(value)
        except (ValueError, RecursionError) as error:
            raise InputError(describe("--set", assignment, "a YAML value after '='")) from error
    return overrides


def _needs_lightning(module: str, name: str) -> Any:
    """Import a training function, or say how to install what it needs."""
    import importlib

    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in {"lightning", "torchmetrics"}:
            raise
        raise BackendError(
            f"training needs {str(error.name).partition('.')[0]}, which is not installed: "
            'pip install "openmm-nequiplr[train]"'
        ) from error


# ------------------------------------------------------------------------------------- evaluate


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="model file, name of a shipped model, committee's directory"
    )
    parser.add_argument(
        "--committee",
        nargs="+",
        metavar="MODEL",
        help="more models: judge the mean of all, each of them, and what their spread tells",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="extended XYZ (Å, eV) or RuNNer input.data (Bohr, Hartree), unless units are given",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write parity plots here")
    parser.add_argument("--batch-size", type=int, metavar="N", help="structures per batch")
    parser.add_argument("--format", choices=("extxyz", "runner"), help="of DATA")
    units = {"length": "angstrom, bohr, nm, pm", "energy": "eV, hartree, kcal/mol …"}
    for unit, names in units.items():
        parser.add_argument(f"--{unit}-unit", metavar="UNIT", help=f"of DATA: {names}")
    _device_arguments(parser)
    for quantity in ("energy", "forces", "charges", "dipole", "stress", "total-charge"):
        parser.add_argument(
            f"--{quantity}-key", metavar="NAME", help=f"name of the {quantity} in DATA"
        )


def _evaluate(arguments: argparse.Namespace) -> None:
    options = _given(arguments)
    from .model.committee import is_committee

    model, others = options.pop("model"), options.pop("committee", [])
    if others or is_committee(model):
        from .training.spread import evaluate_committee

        evaluate_committee([model, *others], options.pop("data"), **options)
        return
    from .training.evaluate import evaluate_model

    evaluate_model(model, options.pop("data"), **options)


def _frame_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frame", type=int, metavar="N", help="of several in STRUCTURE, from 0; -1 is the last one"
    )


def _device_arguments(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", metavar="DEVICE", help="torch device of the network")
    parser.add_argument(
        "--precision", choices=("single", "double"), help="precision of the network"
    )


# ---------------------------------------------------------------------------------------- check


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file or name of a shipped model")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="extended XYZ (Å) or RuNNer input.data (Bohr), unless the unit is given",
    )
    parser.add_argument("--quick", action="store_true", help="fewer structures, shorter runs")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write check.json and check.png here"
    )
    parser.add_argument(
        "--record", action="store_true", help="write the figures into the card of MODEL"
    )
    parser.add_argument("--format", choices=("extxyz", "runner"), help="of DATA")
    parser.add_argument("--length-unit", metavar="UNIT", help="of DATA: angstrom, bohr, nm, pm")
    parser.add_argument(
        "--total-charge-key", metavar="NAME", help="name of the total charge in DATA"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="structures to use (default: 50)")
    parser.add_argument(
        "--minimisations", type=int, metavar="N", help="for each displacement (default: 30)"
    )
    parser.add_argument(
        "--displacement",
        dest="displacements",
        type=float,
        nargs="+",
        metavar="ANGSTROM",
        help="standard deviations of a component, 0.15 and 0.3 if not given",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of a minimisation, at most (default: 150)"
    )
    parser.add_argument(
        "--runs", type=int, metavar="N", help="of dynamics at each temperature (default: 5)"
    )
    parser.add_argument("--ps", type=float, help="length of a run in ps (default: 2)")
    parser.add_argument("--fs", type=float, help="time step in fs (default: 0.5)")
    parser.add_argument(
        "--temperature",
        dest="temperatures",
        type=float,
        nargs="+",
        metavar="K",
        help="in K; if not given, 300, and 600 as well without a cell",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of all random numbers (default: 0)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of torch and platform CPU (default: 1)"
    )


def _check(arguments: argparse.Namespace) -> int:
    from .checking import check_file

    report = check_file(**_given(arguments))
    print(report.verdict)
    return 0 if report.fit else EXIT_UNFIT


# -------------------------------------------------------------------------------------- convert


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights_path", metavar="WEIGHTS", type=Path, help="weights (.pth) of nequip-charge"
    )
    parser.add_argument(
        "--config",
        dest="config_path",
        metavar="CONFIG",
        type=Path,
        required=True,
        help="the YAML that the weights were trained with, or a JSON with a 'config' entry",
    )
    parser.add_argument("-o", "--output", metavar="MODEL", type=Path, required=True)
    periodic = parser.add_mutually_exclusive_group()
    periodic.add_argument(
        "--legacy-periodic",
        action="store_true",
        help="reproduce the published periodic code, whose charges do not interact",
    )
    periodic.add_argument(
        "--corrected-periodic",
        action="store_true",
        help="the weights come from a repaired periodic code: full Ewald sums",
    )
    parser.add_argument(
        "--global-rescale",
        action=argparse.BooleanOptionalAction,
        help="multiply the energy by global_rescale_scale, as nequip does when it evaluates "
        "(default: as the results in CONFIG show, if it holds any; else yes for YAML, no for JSON)",
    )


def _convert(arguments: argparse.Namespace) -> None:
    from .model.convert import convert_checkpoint

    options = _given(arguments)
    convert_checkpoint(**options)
    print(f"wrote {options['output']}")


# ------------------------------------------------------------------------------------------- md


def _md_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file or name of a shipped model")
    parser.add_argument(
        "structure",
        metavar="STRUCTURE",
        nargs="?",
        help="extended XYZ, PDB, CIF, GRO, POSCAR or another file that ASE reads "
        "(default: the start structure of a shipped model)",
    )
    _frame_argument(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--ensemble", choices=("nve", "nvt", "npt"), help="(default: nvt)")
    run.add_argument("--steps", type=int, metavar="N", help="time steps to do (default: 1000)")
    run.add_argument("--timestep", type=float, metavar="FS", help="in fs (default: 1)")
    run.add_argument("--temperature", type=float, metavar="K", help="in K (default: 300)")
    run.add_argument("--friction", type=float, metavar="PER_PS", help="in 1/ps (default: 1)")
    run.add_argument("--pressure", type=float, metavar="BAR", help="in bar (default: 1)")
    run.add_argument(
        "--barostat",
        choices=("isotropic", "anisotropic", "flexible"),
        help="what may change in npt: the volume, the edges, the shape (default: isotropic)",
    )
    run.add_argument(
        "--barostat-axes", metavar="AXES", help="of the anisotropic barostat (default: xyz)"
    )
    run.add_argument(
        "--barostat-interval", type=int, metavar="N", help="steps between moves (default: 25)"
    )
    run.add_argument("--total-charge", type=float, metavar="E", help="in e; else the structure's")
    run.add_argument("--minimize", action="store_true", help="relax the structure first")
    run.add_argument("--seed", type=int, metavar="N", help="of velocities, thermostat, barostat")
    force = parser.add_argument_group("forces")
    force.add_argument("--platform", metavar="P", help="Reference, CPU, OpenCL or CUDA")
    force.add_argument(
        "--long-range",
        choices=("auto", "openmm", "graph"),
        help="who sums the point charges: OpenMM's PME or torch (default: auto)",
    )
    force.add_argument("--ewald-tolerance", type=float, metavar="X", help="of the PME")
    force.add_argument(
        "--solver", choices=("auto", "dense", "iterative"), help="of the charges (default: auto)"
    )
    force.add_argument(
        "--charge-tolerance", type=float, metavar="X", help="of the iterative solver"
    )
    force.add_argument("--max-iterations", type=int, metavar="N", help="of the iterative solver")
    _device_arguments(force)
    force.add_argument("--threads", type=int, metavar="N", help="of torch and platform CPU")
    committee = parser.add_argument_group("committee")
    committee.add_argument(
        "--committee",
        nargs="+",
        metavar="MODEL",
        help="other models, or a committee's directory, whose spread with MODEL is reported",
    )
    committee.add_argument(
        "--spread-threshold",
        type=float,
        metavar="EV_PER_ANGSTROM",
        help="what the force on no atom should be spread by",
    )
    committee.add_argument(
        "--on-spread",
        choices=("save", "stop"),
        help="beyond the threshold, save the frame, or save it and end the run (default: save)",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--output", type=Path, metavar="DIR", help="for results (default: md)")
    files.add_argument(
        "--restart",
        action="store_true",
        help="continue the run whose results are in --output; what is not given stays as it was",
    )
    files.add_argument("--report-interval", type=int, metavar="N", help="steps between frames")
    files.add_argument(
        "--checkpoint-interval", type=int, metavar="N", help="steps between checkpoints"
    )
    files.add_argument(
        "--on-unstable",
        choices=("stop", "warn"),
        help="when temperature, distances, charges or energy leave all bounds (default: stop)",
    )
    files.add_argument(
        "--charge-of", metavar="ELEMENT", help="whose charge the picture shows, else the rarest"
    )
    files.add_argument("--quiet", action="store_true", help="print nothing")


def _md(arguments: argparse.Namespace) -> None:
    # threads that wait sleep: spinning beside a busy process costs a step many times its time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _terminable():
        from .simulation.md import continued_options, run_md

        run_md(continued_options(**_given(arguments)))


@contextmanager
def _terminable() -> Iterator[None]:
    """Make an error of SIGTERM, as of SIGINT, until someone takes better care of it."""

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


# -------------------------------------------------------------------------------------- analyze


def _analyze_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file or name of a shipped model")
    parser.add_argument(
        "trajectory",
        metavar="TRAJECTORY",
        help="output directory of nequiplr md, or a file that mdtraj or ASE reads",
    )
    parser.add_argument(
        "--topology", metavar="FILE", help="for formats that hold coordinates alone (DCD, XTC …)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for results; analysis, in that of a run"
    )
    parser.add_argument("--stride", type=int, metavar="N", help="frames from one to the next")
    parser.add_argument(
        "--total-charge", type=float, metavar="E", help="in e; else the trajectory's"
    )
    parser.add_argument("--forces", action="store_true", help="keep forces as well")
    parser.add_argument("--r-max", type=float, metavar="ANGSTROM", help="longest distance of pairs")
    parser.add_argument("--bin-width", type=float, metavar="ANGSTROM", help="of distances")
    parser.add_argument(
        "--resume", action="store_true", help="go on behind the last frame in --output"
    )
    parser.add_argument("--solver", choices=("auto", "dense", "iterative"), help="of the charges")
    parser.add_argument(
        "--charge-tolerance", type=float, metavar="X", help="of the iterative solver"
    )
    parser.add_argument("--max-iterations", type=int, metavar="N", help="of the iterative solver")
    _device_arguments(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="of torch")
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def _analyze(arguments: argparse.Namespace) -> None:
    from .analysis import analyze_trajectory

    analyze_trajectory(**_given(arguments))


# --------------------------------------------------------------------------------------- export


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file or name of a shipped model")
    parser.add_argument(
        "structure",
        metavar="STRUCTURE",
        help="extended XYZ, PDB, CIF, GRO, POSCAR or another file that ASE reads",
    )
    _frame_argument(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
    parser.add_argument(
        "--total-charge", type=float, metavar="E", help="in e; else the structure's"
    )
    parser.add_argument("--solver", choices=("auto", "dense", "iterative"), help="of the charges")
    _device_arguments(parser)


def _export(arguments: argparse.Namespace) -> None:
    from .simulation.export import export_structure

    options = _given(arguments)
    line = export_structure(options.pop("model"), options.pop("structure"), **options)
    print(line, file=sys.stderr)
    print(f"wrote {options['output']}")


# ----------------------------------------------------------------------------------------- info


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="model file or name of a shipped model; without it, the shipped models are listed",
    )


def _info(arguments: argparse.Namespace) -> None:
    from .model.info import describe_model, list_shipped_models

    model = _given(arguments).get("model")
    print(list_shipped_models() if model is None else describe_model(model))


_COMMANDS = {
    "train": (_train_arguments, _train, "train a model from a configuration file"),
    "evaluate": (_evaluate_arguments, _evaluate, "compare a model with reference data"),
    "check": (_check_arguments, _check, "tell whether a model is fit for dynamics"),
    "convert": (_convert_arguments, _convert, "convert a checkpoint of the nequip-charge code"),
    "md": (_md_arguments, _md, "run molecular dynamics in OpenMM"),
    "analyze": (_analyze_arguments, _analyze, "recompute charges and energies of a trajectory"),
    "export": (_export_arguments, _export, "write a model as TorchScript for OpenMM's TorchForce"),
    "info": (_info_arguments, _info, "describe a model, or list the shipped ones"),
}
