"""Arguments that several commands share, and a short way of declaring one."""

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

#: Exit status where something was examined and is not fit.
EXIT_UNFIT = 1

_PLUMBING = {"command", "call", "traceback"}
_STRUCTURE = "start structure: extended XYZ, PDB, CIF, GRO, POSCAR or any other file that ASE reads"

Parser = argparse._ActionsContainer


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the name that may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Print the message and where the usage is found, and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (usage: {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse, after a look for unknown options: they count before what is missing."""
        words = list(sys.argv[1:] if args is None else args)
        has_commands, known = self._subparsers is not None, self._option_string_actions
        for word in itertools.takewhile(lambda each: each != "--", words):
            name = word.partition("=")[0]
            if has_commands and not name.startswith("-"):
                break  # what follows belongs to the command
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
    """The options that were given, by the names under which the library knows them."""
    return {name: value for name, value in vars(arguments).items() if name not in _PLUMBING}


def option(parser: Parser, name: str, metavar: str | None, help: str, **more: Any) -> None:
    """An option with a value; ``N`` stands for a whole number, a unit for a real one."""
    kinds: dict[str, Any] = {"N": int, "DIR": Path}
    units = ("FS", "K", "PER_PS", "BAR", "E", "X", "ANGSTROM", "EV_PER_ANGSTROM", "PS")
    kinds |= dict.fromkeys(units, float)
    if metavar in kinds:
        more.setdefault("type", kinds[metavar])
    parser.add_argument(name, metavar=metavar, help=help, **more)


def choice(parser: Parser, name: str, choices: tuple[str, ...], help: str) -> None:
    """An option with one of a few values."""
    parser.add_argument(name, choices=choices, help=help)


def flag(parser: Parser, name: str, help: str, **more: Any) -> None:
    """An option without a value."""
    parser.add_argument(name, action="store_true", help=help, **more)


def model_argument(parser: Parser) -> None:
    option(parser, "model", "MODEL", "model file or name of a model")


def structure_argument(parser: Parser, more: str = "", **options: Any) -> None:
    option(parser, "structure", "STRUCTURE", _STRUCTURE + more, **options)
    option(
        parser,
        "--frame",
        "N",
        "frame to use if STRUCTURE has several, counted from 0; the last one if not given",
    )


def total_charge_argument(parser: Parser, whose: str) -> None:
    option(
        parser,
        "--total-charge",
        "E",
        f"total charge of the system in e; taken from the {whose} if not given",
    )


def charge_groups_arguments(parser: Parser) -> None:
    """Groups of atoms whose charges are held."""
    what = "hold the charge of every bonded molecule"
    choice(parser, "--charge-groups", ("molecules",), what)
    charges = "charges of molecules by formula, in e, as in Na=1 Cl=-1; 0 for others"
    option(parser, "--group-charges", "NAME=E", charges, nargs="+", action=_Charges)


def electrodes_arguments(parser: Parser) -> None:
    """Two electrodes and the voltage between them."""
    what = "two electrodes: a chain, residues, or indices of atoms such as 0-31,40, for each"
    option(parser, "--electrodes", "ATOMS", what, nargs=2)
    voltage = "potential of the first electrode less that of the second, in V (default: 0)"
    option(parser, "--electrode-voltage", "V", voltage, type=float)


class _Charges(argparse.Action):
    """Charges by name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            pairs = [value.split("=") for value in values]
            setattr(namespace, self.dest, {name: float(charge) for name, charge in pairs})
        except ValueError:
            parser.error(f"argument {option_string}: expected NAME=E, got {' '.join(values)}")


def slab_argument(parser: Parser) -> None:
    flag(parser, "--slab", "the box is that of a slab: vacuum along its third vector, the normal z")


def device_arguments(parser: Parser) -> None:
    option(
        parser, "--device", "DEVICE", "torch device on which the network runs, such as cpu or cuda"
    )
    choice(parser, "--precision", ("single", "double"), "floating-point precision of the network")


def solver_argument(parser: Parser) -> None:
    choices = ("auto", "dense", "iterative")
    choice(parser, "--solver", choices, "how the charges are solved for (default: auto)")


def evaluation_arguments(parser: Parser, threads: str = "number of threads of torch") -> None:
    """Fields of ``EvaluationOptions``, and threads."""
    solver_argument(parser)
    option(
        parser, "--charge-tolerance", "X", "relative residual at which the iterative solver stops"
    )
    option(
        parser,
        "--max-iterations",
        "N",
        "iterations of the iterative solver after which it gives up",
    )
    device_arguments(parser)
    option(parser, "--threads", "N", threads)


def data_arguments(
    parser: Parser, help: str, units: tuple[str, ...], keys: tuple[str, ...], **more: Any
) -> None:
    """A data file, its format and units, and the keys of its labels."""
    option(parser, "data", "DATA", help, **more)
    choice(parser, "--format", ("extxyz", "runner"), "format of DATA; detected if not given")
    names = {"length": "angstrom, bohr, nm or pm", "energy": "eV, hartree, kcal/mol, …"}
    for unit in units:
        option(parser, f"--{unit}-unit", "UNIT", f"unit of {unit} in DATA: {names[unit]}")
    for key in keys:
        what = f"key of the {key.replace('-', ' ')} in DATA; common names are recognised without it"
        option(parser, f"--{key}-key", "NAME", what)


def json_argument(parser: Parser) -> None:
    flag(parser, "--json", "print the result as JSON; all else goes to standard error")


@contextmanager
def answer(options: dict[str, Any]) -> Iterator[Callable[[Any], None]]:
    """Where the result of a command goes: with ``json`` among `options`, which is removed, JSON.

    Yields
    ------
    callable
        Takes a result that has ``to_dict``. Without ``json`` it does nothing: the library has
        printed its tables.
    """
    if not options.pop("json", False):
        yield lambda result: None
        return
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        yield lambda result: print(
            json.dumps(result.to_dict(), indent=1, ensure_ascii=False), file=stdout
        )
