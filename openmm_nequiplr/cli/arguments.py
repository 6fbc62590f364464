"""Arguments shared by several commands, and helpers to declare arguments."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from ..errors import unknown

#: Exit status of a check that finds its subject unfit.
EXIT_UNFIT = 1

_PLUMBING = {"command", "call", "traceback"}
_STRUCTURE = "start structure: extended XYZ, PDB, CIF, GRO, POSCAR or any other file that ASE reads"

Parser = argparse._ActionsContainer


class CommandParser(argparse.ArgumentParser):
    """Parser whose errors are one line, with a suggestion for misspelt names."""

    def error(self, message: str) -> NoReturn:
        """Print the message and how to get help, and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (usage: {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse; unknown options are reported before missing arguments."""
        words = list(sys.argv[1:] if args is None else args)
        has_commands, known = self._subparsers is not None, self._option_string_actions
        for word in itertools.takewhile(lambda each: each != "--", words):
            name = word.partition("=")[0]
            if has_commands and not name.startswith("-"):
                break  # the rest belongs to the command
            if name.startswith("--") and not any(each.startswith(name) for each in known):
                names = [each for each in known if each.startswith("--")]
                self.error(unknown("option", name, names))
        return super().parse_known_args(words, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, unknown("command", value, action.choices))
        raise argparse.ArgumentError(action, unknown("value", value, map(str, action.choices)))


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options given by the user, by their names in the library."""
    return {name: value for name, value in vars(arguments).items() if name not in _PLUMBING}


def option(parser: Parser, name: str, metavar: str | None, help: str, **more: Any) -> None:
    """Add an option with a value; the metavar ``N`` means an integer, a unit means a float."""
    kinds: dict[str, Any] = {"N": int, "DIR": Path}
    units = ("FS", "K", "PER_PS", "BAR", "E", "X", "ANGSTROM", "EV_PER_ANGSTROM", "PS")
    kinds |= dict.fromkeys(units, float)
    if metavar in kinds:
        more.setdefault("type", kinds[metavar])
    parser.add_argument(name, metavar=metavar, help=help, **more)


def choice(parser: Parser, name: str, choices: tuple[str, ...], help: str) -> None:
    """Add an option with one of several values."""
    parser.add_argument(name, choices=choices, help=help)


def flag(parser: Parser, name: str, help: str, **more: Any) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action="store_true", help=help, **more)


def model_argument(parser: Parser) -> None:
    option(parser, "model", "MODEL", "model file or name of a model")


def structure_argument(parser: Parser, more: str = "", **options: Any) -> None:
    option(parser, "structure", "STRUCTURE", _STRUCTURE + more, **options)
    option(
        parser,
        "--frame",
        "N",
        "frame to use if STRUCTURE has several, counted from 0; by default the last one",
    )


def total_charge_argument(parser: Parser, whose: str) -> None:
    option(
        parser,
        "--total-charge",
        "E",
        f"total charge of the system in e; by default that of the {whose}",
    )


def charge_groups_arguments(parser: Parser) -> None:
    """Add the options of charge groups."""
    what = "constrain the total charge of each bonded molecule"
    choice(parser, "--charge-groups", ("molecules",), what)
    charges = "charges of molecules by formula, in e, such as Na=1 Cl=-1; 0 for others"
    option(parser, "--group-charges", "NAME=E", charges, nargs="+", action=_Charges)


def electrodes_arguments(parser: Parser) -> None:
    """Add the options of two electrodes and the voltage between them."""
    what = "two electrodes, each given as a chain, residues, or atom indices such as 0-31,40"
    option(parser, "--electrodes", "ATOMS", what, nargs=2)
    voltage = "potential of the first electrode minus that of the second, in V (default: 0)"
    option(parser, "--electrode-voltage", "V", voltage, type=float)


class _Charges(argparse.Action):
    """Parse charges by name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            pairs = [value.split("=") for value in values]
            setattr(namespace, self.dest, {name: float(charge) for name, charge in pairs})
        except ValueError:
            parser.error(f"argument {option_string}: expected NAME=E, got {' '.join(values)}")


def slab_argument(parser: Parser) -> None:
    flag(parser, "--slab", "treat the box as a slab with vacuum along its third vector, z")


def device_arguments(parser: Parser) -> None:
    option(
        parser, "--device", "DEVICE", "torch device on which the network runs, such as cpu or cuda"
    )
    choice(parser, "--precision", ("single", "double"), "floating-point precision of the network")


def solver_argument(parser: Parser) -> None:
    choices = ("auto", "dense", "iterative")
    choice(parser, "--solver", choices, "solver of the charge equilibration (default: auto)")


def evaluation_arguments(parser: Parser, threads: str = "number of threads of torch") -> None:
    """Add the fields of ``EvaluationOptions``, and threads."""
    solver_argument(parser)
    option(
        parser, "--charge-tolerance", "X", "relative residual at which the iterative solver stops"
    )
    option(
        parser,
        "--max-iterations",
        "N",
        "largest number of iterations of the iterative solver",
    )
    device_arguments(parser)
    option(parser, "--threads", "N", threads)


def data_arguments(
    parser: Parser, help: str, units: tuple[str, ...], keys: tuple[str, ...], **more: Any
) -> None:
    """Add a data file, its format and units, and the keys of its labels."""
    option(parser, "data", "DATA", help, **more)
    choice(parser, "--format", ("extxyz", "runner"), "format of DATA; detected if not given")
    names = {"length": "angstrom, bohr, nm or pm", "energy": "eV, hartree, kcal/mol, …"}
    for unit in units:
        option(parser, f"--{unit}-unit", "UNIT", f"unit of {unit} in DATA: {names[unit]}")
    for key in keys:
        what = f"key of the {key.replace('-', ' ')} in DATA; common names are detected"
        option(parser, f"--{key}-key", "NAME", what)


def json_argument(parser: Parser) -> None:
    flag(parser, "--json", "print the result as JSON; all other output goes to standard error")


@contextmanager
def answer(options: dict[str, Any]) -> Iterator[Callable[[Any], None]]:
    """Context manager that prints the result of a command as JSON if `options` contain ``json``.

    The entry ``json`` is removed from `options`.

    Yields
    ------
    callable
        Prints a result that has ``to_dict``. Without ``json`` it does nothing, as the library
        prints its tables itself.
    """
    if not options.pop("json", False):
        yield lambda result: None
        return
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        yield lambda result: print(
            json.dumps(result.to_dict(), indent=1, ensure_ascii=False), file=stdout
        )
