"""The commands ``convert``, ``export``, ``info``, ``models`` and ``doctor``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from ..errors import InputError, describe
from .arguments import (
    EXIT_UNFIT,
    charge_groups_arguments,
    device_arguments,
    electrodes_arguments,
    flag,
    given,
    model_argument,
    option,
    slab_argument,
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
    corrected = "the weights come from a corrected periodic code with full Ewald sums"
    flag(periodic, "--corrected-periodic", corrected)
    parser.add_argument(
        "--global-rescale",
        action=argparse.BooleanOptionalAction,
        help="multiply the energy by global_rescale_scale, as nequip does in evaluation "
        "(default: as in the results in CONFIG, if any; else yes for YAML, no for JSON)",
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
    charge_groups_arguments(parser)
    electrodes_arguments(parser)
    slab_argument(parser)
    solver_argument(parser)
    device_arguments(parser)


def export(arguments: argparse.Namespace) -> None:
    from ..simulation.export import export_structure

    options = given(arguments)
    line = export_structure(options.pop("model"), options.pop("structure"), **options)
    print(line, file=sys.stderr)
    print(f"wrote {options['output']}")


def info_arguments(parser: argparse.ArgumentParser) -> None:
    what = "model file or name of a model; without it, describe the installation and list models"
    option(parser, "model", "MODEL", what, nargs="?")


def info(arguments: argparse.Namespace) -> None:
    model = given(arguments).get("model")
    if model is None:
        from ..doctor import describe_installation
        from ..pretrained import list_shipped_models

        print(f"{describe_installation()}\n\n{list_shipped_models()}")
        return
    from ..model.info import describe_model

    print(describe_model(model))


def models_arguments(parser: argparse.ArgumentParser) -> None:
    choices = ("list", "download")
    what = "list all named models, or download NAME to the cache"
    parser.add_argument("action", choices=choices, metavar="{list,download}", help=what)
    option(parser, "name", "NAME", "name of the model to download", nargs="?")
    option(parser, "--url", "URL", "URL of the model file (default: that of a registry)")
    option(parser, "--sha256", "DIGEST", "digest of the file, if no registry lists NAME")
    flag(parser, "--again", "download the model even if it is in the cache")


def models(arguments: argparse.Namespace) -> None:
    from ..pretrained import download_model, list_models

    options = given(arguments)
    if options.pop("action") == "list":
        if options:
            raise InputError(describe("models list", sorted(options), "no further argument"))
        print(list_models())
        return
    if "name" not in options:
        raise InputError(describe("NAME", None, "the name of the model to download"))
    print(download_model(**options))


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    flag(parser, "--json", "print the findings as JSON", default=False)
    what = "measure the numbers of atoms from which the iterative solver and the GPU are chosen"
    flag(parser, "--calibrate", what, default=False)


def doctor(arguments: argparse.Namespace) -> int:
    from ..doctor import calibrate, examine, report

    as_json = given(arguments)["json"]
    if given(arguments)["calibrate"]:
        print(calibrate(lambda line: print(line, file=sys.stderr)))
        return 0
    say = (lambda name: None) if as_json else (lambda name: print(f"{name} …", file=sys.stderr))
    findings = examine(progress=say)
    fit = all(each.state != "fail" for each in findings)
    if as_json:
        listed = [dataclasses.asdict(each) for each in findings]
        print(json.dumps({"fit": fit, "findings": listed}, indent=1, ensure_ascii=False))
    else:
        print(report(findings))
    return 0 if fit else EXIT_UNFIT
