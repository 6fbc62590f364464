"""The commands ``init``, ``train``, ``evaluate`` and ``check``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BackendError, InputError, NequIPLRError, describe
from .arguments import (
    EXIT_UNFIT,
    answer,
    choice,
    data_arguments,
    device_arguments,
    flag,
    given,
    json_argument,
    model_argument,
    option,
)
from .environment import check_ranks

_TRAIN_CONFIG = (
    "training file (YAML); its data are in Å and eV (extended XYZ) or Bohr and Hartree (RuNNer) "
    "unless its data.units says otherwise, as in {length: angstrom, energy: eV}"
)


_KEYS = (
    "energy", "forces", "charges", "dipole", "stress", "total-charge", "electric-field",
    "charge-groups", "group-charges", "born-charges", "polarizability", "outside-potential",
    "outside-field",
)  # fmt: skip


def init_arguments(parser: argparse.ArgumentParser) -> None:
    data = "reference data: extended XYZ (Å, eV) or RuNNer (Bohr, Hartree), or in the given units"
    data_arguments(parser, data, ("length", "energy"), _KEYS, nargs="+")
    name = "training file to write (default: name of DATA with the suffix .yaml)"
    option(parser, "-o", "FILE", name, dest="output", type=Path)
    flag(parser, "--force", "overwrite FILE if it exists")
    distill = "train a cheap inner potential on the forces of MODEL (for nequiplr md --inner)"
    option(parser, "--distill", "MODEL", distill)
    option(parser, "--max-time", "MIN", "training time in minutes (default: 60)", type=float)
    timing = "largest time in s for timing training steps (default: 20)"
    option(parser, "--timing", "SECONDS", timing, type=float)
    untimed = "do not time training steps"
    parser.add_argument("--no-timing", dest="timing", action="store_const", const=0.0, help=untimed)


def init(arguments: argparse.Namespace) -> None:
    check_ranks()
    from ..training.new import new_config

    new_config(**given(arguments))


def train_arguments(parser: argparse.ArgumentParser) -> None:
    option(parser, "config_path", "CONFIG", _TRAIN_CONFIG, type=Path)
    resume = "continue from the last checkpoint; refused if data or settings have changed"
    flag(parser, "--resume", resume, default=False)
    dry_run = "read and check all input and time a few steps, but write nothing"
    flag(parser, "--dry-run", dry_run)
    flag(
        parser, "--accept-changes", "with --resume: continue even if data or settings have changed"
    )
    seeds = "train a committee, one model per seed; a single number N means seeds 0 to N−1"
    option(parser, "--seeds", "SEED", seeds, type=int, nargs="+")
    option(
        parser,
        "--set",
        "KEY=VALUE",
        "override entries of CONFIG, for example --set optimizer.lr=0.005 max_time=10",
        dest="overrides",
        action="extend",
        nargs="+",
        default=[],
    )
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        default=True,
        help="skip the quick stability check at the end (see nequiplr check)",
    )


def train(arguments: argparse.Namespace) -> None:
    options = given(arguments)
    options["overrides"] = parse_overrides(options["overrides"])
    check_it = options.pop("check")
    if options.pop("dry_run", False):
        only = {name: options[name] for name in ("config_path", "resume", "overrides")}
        _needs_lightning("openmm_nequiplr.training.dry_run", "dry_run")(**only)
        return
    if "seeds" in options:
        run = _needs_lightning("openmm_nequiplr.training.committee", "train_committee")
    else:
        run = _needs_lightning("openmm_nequiplr.training.run", "train")
    result = run(**options)
    if check_it and result is not None:
        _check_trained(result)


def _check_trained(result: Any) -> None:
    """Check the models of a training; the outcome does not affect the exit status."""
    try:
        from ..checking import check_trained

        reports = check_trained(result.model_paths, result.validation_structures)
    except (NequIPLRError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != "openmm":
            raise
        print(f"check: skipped ({' '.join(str(error).split())})")
        return
    for path, report in zip(result.model_paths, reports, strict=True):
        print(f"{path}: {report.verdict}")


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` assignments; the values are YAML.

    Parameters
    ----------
    assignments : sequence of str
        Such as ``["model.l_max=2", "trainer.devices=[0, 1]"]``.

    Returns
    -------
    dict of str to object
        Dotted keys and their values.

    Raises
    ------
    InputError
        If an assignment has no key or no ``=``, or its value is not YAML.
    """
    from ..yaml_files import parse_yaml

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
    """Import a training function; the error states which package to install."""
    check_ranks()
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in {"lightning", "torchmetrics"}:
            raise
        raise BackendError(
            f"training needs {str(error.name).partition('.')[0]}, which is not installed: "
            'pip install "openmm-nequiplr[train]"'
        ) from error


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    models = "model file, name of a model, or directory of a committee"
    option(parser, "model", "MODEL", models)
    committee = (
        "other members of a committee: evaluate their mean, each member and the disagreement"
    )
    option(parser, "--committee", "MODEL", committee, nargs="+")
    data = "reference data: extended XYZ (Å, eV) or RuNNer (Bohr, Hartree), or in the given units"
    data += " (default with --split: the data of the training)"
    data_arguments(parser, data, ("length", "energy"), _KEYS, nargs="?")
    parts = "evaluate only structures of this part of the data in the training of MODEL"
    choice(parser, "--split", ("train", "validation", "test"), parts)
    option(parser, "--output", "DIR", "directory for parity plots and tables of errors")
    option(parser, "--batch-size", "N", "number of structures per batch")
    device_arguments(parser)
    json_argument(parser)


def evaluate(arguments: argparse.Namespace) -> None:
    options = given(arguments)
    from ..model.committee import is_committee

    model, others = options.pop("model"), options.pop("committee", [])
    with answer(options) as print_result:
        if others or is_committee(model):
            from ..training.spread import evaluate_committee

            print_result(evaluate_committee([model, *others], **options))
        else:
            from ..training.evaluate import evaluate_model

            print_result(evaluate_model(model, **options))


def check_arguments(parser: argparse.ArgumentParser) -> None:
    model_argument(parser)
    data = "initial structures: extended XYZ (Å) or RuNNer (Bohr), or in the given unit"
    data_arguments(parser, data, ("length",), ("total-charge",))
    flag(parser, "--quick", "use fewer structures and shorter runs")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="directory for check.json and check.png"
    )
    flag(parser, "--record", "write the results to the model card of MODEL")
    option(parser, "--frames", "N", "number of structures to use (default: 50)")
    option(
        parser,
        "--minimisations",
        "N",
        "number of minimisations for each displacement (default: 30)",
    )
    several: dict[str, Any] = {"type": float, "nargs": "+"}
    spread = "standard deviations of the random displacements in Å; by default 0.15 and 0.3"
    option(parser, "--displacement", "ANGSTROM", spread, dest="displacements", **several)
    option(parser, "--steps", "N", "largest number of steps of a minimisation (default: 150)")
    option(parser, "--runs", "N", "number of dynamics runs at each temperature (default: 5)")
    option(parser, "--ps", "PS", "length of a dynamics run in ps (default: 2)")
    option(parser, "--fs", "FS", "time step in fs (default: 0.5)")
    kelvin = "temperatures of the runs in K; by default 300, without a cell also 600"
    option(parser, "--temperature", "K", kelvin, dest="temperatures", **several)
    option(parser, "--seed", "N", "seed of all random numbers (default: 0)")
    option(
        parser, "--threads", "N", "number of threads of torch and of the CPU platform (default: 1)"
    )
    json_argument(parser)


def check(arguments: argparse.Namespace) -> int:
    from ..checking import check_file

    options = given(arguments)
    with answer(options) as print_result:
        report = check_file(**options)
        print(report.verdict)
        print_result(report)
    return 0 if report.fit else EXIT_UNFIT
