"""Reading data files of any supported format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..checks import check_choice
from .checking import Say
from .extxyz import read_extxyz
from .keys import DataKeys, FoundKeys
from .runner import read_runner
from .structure import Structure
from .units import DataUnits

FORMATS = ("extxyz", "runner")


def read_structures(
    path: str | Path | Iterable[str | Path],
    keys: DataKeys | None = None,
    format: str | None = None,
    units: DataUnits | None = None,
    say: Say = print,
    found: FoundKeys | None = None,
) -> list[Structure]:
    """Read all structures of one file, or of several in the order given.

    Labels that are zero throughout a file are taken as unknown, unless their key was named.

    Parameters
    ----------
    path : path, or iterable of paths
    keys : DataKeys, optional
        Key names of extended XYZ files.
    format : {"extxyz", "runner"}, optional
        Recognised from the file when not given: a file whose first word is ``begin`` is RuNNer.
    units : DataUnits, optional
        Of the files; Å and eV for extended XYZ, Bohr and Hartree for RuNNer when not given.
    say : callable
        Takes a line on what was found that the labels alone do not tell: labels that are ignored,
        taken as unknown or contradict each other, total charges that are assumed.
    found : FoundKeys, optional
        Receives the keys of extended XYZ files.

    Returns
    -------
    list of Structure
        In Å, eV and e.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    InputError
        If a file cannot be understood, or distances are far from bonds in the unit of length
        and the user did not state it.
    """
    if format is not None:
        check_choice("format", format, FORMATS)
    if not isinstance(path, (str, Path)):
        return [s for each in path for s in read_structures(each, keys, format, units, say, found)]
    if not Path(path).is_file():
        raise FileNotFoundError(f"data file: expected an existing file, got {path}")
    if (format or _detect(path)) == "runner":
        if keys is not None and keys.named():
            say(f"{path}: keys of {', '.join(keys.named())} mean nothing in a RuNNer file")
        return read_runner(path, units, say)
    return read_extxyz(path, keys, units, say, found)


def unsaid(line: str) -> None:
    """For ``say``: nothing is said."""


def _detect(path: str | Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            words = line.split()
            if words and not words[0].startswith("#"):
                return "runner" if words[0] == "begin" else "extxyz"
    return "extxyz"
