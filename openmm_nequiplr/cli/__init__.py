"""The command ``nequiplr``: each sub-command parses its arguments and calls the library once.

Heavy packages (torch, OpenMM, Lightning) are imported inside the sub-commands, so that
``nequiplr --help`` is fast. Options that are not given are not passed on, so the defaults are those
of the library; a test compares the help texts with them.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .. import __version__
from ..console import spell_on_streams
from ..errors import Interrupted, NequIPLRError, NequIPLRWarning
from . import models, simulation, training
from .arguments import CommandParser
from .environment import settle_environment

EXIT_FAILURE = 2
EXIT_INTERRUPTED = 130
_SIGNALLED = 128  # plus the number of the signal, as in shells

_COMMANDS = {
    "init": (
        training.init_arguments, training.init, "inspect data and write a training file for them"
    ),
    "train": (training.train_arguments, training.train, "train a model from a configuration file"),
    "evaluate": (
        training.evaluate_arguments, training.evaluate, "compare a model with reference data"
    ),
    "check": (
        training.check_arguments, training.check, "check whether a model is fit for dynamics"
    ),
    "convert": (
        models.convert_arguments, models.convert, "convert a checkpoint of the nequip-charge code"
    ),
    "md": (simulation.md_arguments, simulation.md, "run molecular dynamics in OpenMM"),
    "analyze": (
        simulation.analyze_arguments,
        simulation.analyze,
        "compute charges and energies along a stored trajectory",
    ),
    "export": (
        models.export_arguments,
        models.export,
        "export a model as TorchScript for OpenMM's TorchForce",
    ),
    "info": (models.info_arguments, models.info, "describe a model, or the installation"),
    "models": (models.models_arguments, models.models, "list models by name, or download one"),
    "doctor": (models.doctor_arguments, models.doctor, "check the installation and give advice"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the name of the program; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 on success; 1 if ``check`` or ``doctor`` finds the model or the installation unfit; 2
        after an error (one line on standard error); 130 after Ctrl-C; 143 after SIGTERM.
    """
    spell_on_streams()
    settle_environment()
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        with _warnings_as_lines():
            status = arguments.call(arguments)
    except KeyboardInterrupt as error:
        print(f"nequiplr: {one_line(error) if error.args else 'interrupted'}", file=sys.stderr)
        return _SIGNALLED + error.number if isinstance(error, Interrupted) else EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILURE
    except Exception as error:
        if arguments.traceback or not _is_clear(error):
            raise
        print(f"nequiplr: error: {one_line(error)}", file=sys.stderr)
        return EXIT_FAILURE
    return status or 0


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print the package's own warnings as lines on standard error, each line once."""
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
    """Whether the message suffices without a traceback."""
    # OpenMM re-raises errors of a Python force as an OpenMMException with the same message.
    return isinstance(error, NequIPLRError | OSError) or type(error).__name__ == "OpenMMException"


def one_line(error: BaseException) -> str:
    """Message of an error on one line, or its type."""
    return " ".join(str(error).split()) or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``nequiplr`` with all its sub-commands."""
    parser = CommandParser(
        prog="nequiplr", description="Train, convert, inspect and run NequIP-LR potentials."
    )
    parser.add_argument("--version", action="version", version=f"nequiplr {__version__}")
    common = CommandParser(add_help=False)
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
