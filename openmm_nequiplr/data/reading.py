"""Reading data files of any supported format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..checks import check_choice
from .checking import Say
from .extxyz import read_extxyz
from .keys import DataKeys, FoundKeys
from .runner import read_runner
from .sequences import chained
from .store import Keep, store_of
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
    store: Path | None = None,
) -> Sequence[Structure]:
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
    store : path, optional
        Directory for the structures of files that have too many for the memory. Where they are
        there already, from the same files read in the same way, they are not read again.

    Returns
    -------
    sequence of Structure
        In Å, eV and e; a list where all are in memory.

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
        options = keys, format, units, say, found, store
        return chained([read_structures(each, *options) for each in path])
    if not Path(path).is_file():
        raise FileNotFoundError(f"data file: expected an existing file, got {path}")
    if store is None:
        return _read(path, keys, format, units, say, found, list)
    return store_of(path, store, keys, format, units).structures(
        lambda keep, tell: _read(path, keys, format, units, tell, found, keep), say
    )


def _read(
    path: str | Path,
    keys: DataKeys | None,
    format: str | None,
    units: DataUnits | None,
    say: Say,
    found: FoundKeys | None,
    keep: Keep,
) -> Sequence[Structure]:
    if (format or _detect(path)) == "runner":
        if keys is not None and keys.named():
            say(f"{path}: keys of {', '.join(keys.named())} mean nothing in a RuNNer file")
        return read_runner(path, units, say, keep)
    return read_extxyz(path, keys, units, say, found, keep)


def unsaid(line: str) -> None:
    """For ``say``: nothing is said."""


def _detect(path: str | Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            words = line.split()
            if words and not words[0].startswith("#"):
                return "runner" if words[0] == "begin" else "extxyz"
    return "extxyz"
