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
    """Read all structures of one or several files, in the given order.

    Labels that are zero throughout a file are treated as unknown, unless their key is given.

    Parameters
    ----------
    path : path, or iterable of paths
    keys : DataKeys, optional
        Key names of extended XYZ files.
    format : {"extxyz", "runner"}, optional
        By default detected: a file whose first word is ``begin`` is a RuNNer file.
    units : DataUnits, optional
        Units of the files; by default Å and eV for extended XYZ, Bohr and Hartree for RuNNer.
    say : callable
        Called with each note on the data: labels that are ignored, treated as unknown or
        contradictory, and total charges that are assumed.
    found : FoundKeys, optional
        Receives the keys of extended XYZ files.
    store : path, optional
        Directory in which structures of large files are stored on disk. Stored structures are
        reused if the files and the options of reading have not changed.

    Returns
    -------
    sequence of Structure
        In Å, eV and e; a list if all are in memory.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    InputError
        If a file cannot be parsed, or distances are implausible in a unit of length that the user
        did not state.
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
            say(f"{path}: keys of {', '.join(keys.named())} are ignored in a RuNNer file")
        return read_runner(path, units, say, keep)
    return read_extxyz(path, keys, units, say, found, keep)


def unsaid(line: str) -> None:
    """Ignore a note; for the argument ``say``."""


def _detect(path: str | Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            words = line.split()
            if words and not words[0].startswith("#"):
                return "runner" if words[0] == "begin" else "extxyz"
    return "extxyz"
