"""Reader of GRO files: names, positions and box vectors of any orientation, in nm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import InputError, describe, notify
from ..units import ANGSTROM_PER_NM
from .content import FileContent, choose_frame
from .elements import element_from_name, is_site, told_elements

# Order of the nine numbers of a box line: v1x v2y v3z v1y v1z v2x v2z v3x v3y.
_BOX = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))


@dataclass
class _Frame:
    atoms: list[str]
    box: list[float]


def read_gro(path: Path, frame: int | None = None) -> FileContent:
    """Read one frame of a GRO file.

    Parameters
    ----------
    path : path
    frame : int, optional
        By default the last one.

    Raises
    ------
    InputError
        If a line cannot be parsed, an element cannot be deduced, or there is no such frame.
    """
    frames = list(_frames(path))
    chosen = frames[choose_frame(path, frame, len(frames))]
    names = tuple(line[10:15].strip() for line in chosen.atoms)
    residues = tuple((line[5:10].strip(), line[:5].strip()) for line in chosen.atoms)
    return FileContent(
        _symbols(path, names, residues),
        names,
        residues,
        _positions(path, chosen.atoms),
        _cell(chosen.box),
        frames=len(frames),
    )


def gro_frames(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Positions (shape (N, 3), Å) and cell (Å) of each frame, without virtual sites."""
    for frame in _frames(path):
        atoms = [line for line in frame.atoms if not is_site(line[10:15], line[5:10])]
        yield _positions(path, atoms), _cell(frame.box)


def _frames(path: Path) -> Iterator[_Frame]:
    with open(path, encoding="utf-8", errors="replace") as handle:
        while True:
            title, count = handle.readline(), handle.readline()
            if not title or not (title.strip() or count.strip()):
                return
            if not count.strip().isdigit():
                got = f"{count.strip()!r} in {path}"
                raise InputError(describe("number of atoms", got, "a whole number in line 2"))
            atoms = [line.rstrip("\r\n") for line in islice(handle, int(count))]
            line = handle.readline()
            box = [_number(path, word) for word in line.split()]
            if len(atoms) < int(count) or len(box) not in (3, 9):
                got = f"{line.strip()!r} after {len(atoms)} atoms of {path}"
                expected = f"{int(count)} atoms, then three or nine numbers of the box"
                raise InputError(describe("structure", got, expected))
            yield _Frame(atoms, box)


def _number(path: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(describe("structure", f"{text!r} in {path}", "a number"))
    return value


def _positions(path: Path, atoms: list[str]) -> np.ndarray:
    """Positions, shape (N, 3), Å; the spacing of the decimal points is the column width."""
    rows = []
    for line in atoms:
        points = [k for k, character in enumerate(line) if character == "." and k >= 20]
        if len(points) < 3:
            raise InputError(describe("structure", f"{line!r} in {path}", "three coordinates"))
        width = points[1] - points[0]
        rows.append([_number(path, line[20 + k * width : 20 + (k + 1) * width]) for k in range(3)])
    return ANGSTROM_PER_NM * np.array(rows, dtype=np.float64).reshape(-1, 3)


def _cell(box: list[float]) -> np.ndarray | None:
    """Lattice vectors, Å; None for a box of zeros."""
    cell = np.zeros((3, 3))
    for value, place in zip(box, _BOX[: len(box)], strict=True):
        cell[place] = ANGSTROM_PER_NM * value
    return cell if cell.any() else None


def _symbols(
    path: Path, names: tuple[str, ...], residues: tuple[tuple[str, str], ...]
) -> tuple[str | None, ...]:
    """Deduce the elements from the names, and report them."""
    symbols: list[str | None] = []
    guesses = []
    for name, (residue, _) in zip(names, residues, strict=True):
        symbol = None
        if not is_site(name, residue):
            symbol = element_from_name(name, residue)
            if symbol is None:
                expected = "a name that begins with an element's symbol"
                raise InputError(describe("element", f"atom {name!r} in {path}", expected))
            guesses.append((name, symbol))
        symbols.append(symbol)
    notify(
        f"structure: {path} has no elements, which are deduced from the atoms' names: "
        f"{told_elements(guesses)}"
    )
    return tuple(symbols)
