"""The commands ``convert``, ``export`` and ``info``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .arguments import (
    device_arguments,
    flag,
    given,
    model_argument,
    option,
    solver_argument,
    structure_argument,
    total_charge_argument,
)


def convert_arguments(parser: argparse.ArgumentParser) -> None:
    option(parser, "weights_path", "WEIGHTS", "weights file (.pth) of nequip-charge", type=Path)
    option(
        parser,
        "--config",
        "CONFIG",
        "YAML file that the weights were trained with, or a JSON file with an entry 'config'",
        dest="config_path",
        type=Path,
        required=True,
    )
    parser.add_argument(
        "-o", "--output", metavar="MODEL", type=Path, required=True, help="model file to write"
    )
    periodic = parser.add_mutually_exclusive_group()
    legacy = "reproduce the published periodic code, in which charges do not interact"
    flag(periodic, "--legacy-periodic", legacy)
    corrected = "the weights come from a repaired periodic code with full Ewald sums"
    flag(periodic, "--corrected-periodic", corrected)
    parser.add_argument(
        "--global-rescale",
        action=argparse.BooleanOptionalAction,
        help="multiply the energy by global_rescale_scale, as nequip does in evaluation "
        "(default: as in the results that CONFIG holds, if any; else yes for YAML, no for JSON)",
    )


def convert(arguments: argparse.Namespace) -> None:
    from ..model.convert import convert_checkpoint

    options = given(arguments)
    convert_checkpoint(**options)
    print(f"wrote {options['output']}")


def export_arguments(parser: argparse.ArgumentParser) -> None:
    model_argument(parser)
    structure_argument(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="TorchScript file to write"
    )
    total_charge_argument(parser, "structure")
    solver_argument(parser)
    device_arguments(parser)


def export(arguments: argparse.Namespace) -> None:
    from ..simulation.export import export_structure

    options = given(arguments)
    line = export_structure(options.pop("model"), options.pop("structure"), **options)
    print(line, file=sys.stderr)
    print(f"wrote {options['output']}")


def info_arguments(parser: argparse.ArgumentParser) -> None:
    what = "model file or name of a shipped model; without it, list the shipped models"
    option(parser, "model", "MODEL", what, nargs="?")


def info(arguments: argparse.Namespace) -> None:
    from ..model.info import describe_model, list_shipped_models

    model = given(arguments).get("model")
    print(list_shipped_models() if model is None else describe_model(model))
