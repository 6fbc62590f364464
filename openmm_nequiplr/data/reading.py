"""Reading data files of any supported format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, describe
from .extxyz import read_extxyz
from .keys import DataKeys
from .runner import read_runner
from .structure import Structure

FORMATS = ("extxyz", "runner")


def read_structures(
    path: str | Path | Iterable[str | Path],
    keys: DataKeys | None = None,
    format: str | None = None,
) -> list[Structure]:
    """Read all structures of one file, or of several in the order given.

    Parameters
    ----------
    path : path, or iterable of paths
    keys : DataKeys, optional
        Key names of extended XYZ files.
    format : {"extxyz", "runner"}, optional
        Recognised from the file when not given: a file whose first word is ``begin`` is RuNNer.

    Returns
    -------
    list of Structure

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    InputError
        If a file cannot be understood.
    """
    if format is not None and format not in FORMATS:
        raise InputError(describe("format", format, " or ".join(FORMATS)))
    if not isinstance(path, (str, Path)):
        return [s for each in path for s in read_structures(each, keys, format)]
    if not Path(path).is_file():
        raise FileNotFoundError(f"data file: expected an existing file, got {path}")
    if (format or _detect(path)) == "runner":
        return read_runner(path)
    return read_extxyz(path, keys)


def _detect(path: str | Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            words = line.split()
            if words and not words[0].startswith("#"):
                return "runner" if words[0] == "begin" else "extxyz"
    return "extxyz"
