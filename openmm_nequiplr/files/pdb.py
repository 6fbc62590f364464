"""Reader of PDB files that corrects common defects before OpenMM reads them.

OpenMM drops atoms whose names are repeated within a residue, uses the first of alternate locations,
guesses elements by the first letter, and accepts placeholders of cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, describe, notify
from .content import (
    FileContent,
    cell_of_parameters,
    choose_frame,
    say_space_group,
    sum_of_formal_charges,
)
from .elements import element_from_name, fits, is_site, known_element, say_guesses
from .locations import Location, say_locations, single_locations

_ATOMS = ("ATOM  ", "HETATM")
# Largest relative deviation of the cells of CRYST1 and SCALE records; else the latter are ignored.
_SAME_CELL = 5e-3
_HEX = re.compile("[0-9A-Fa-f]*")  # atom numbers beyond 99,999


@dataclass
class _Frame:
    """Records of one frame: atoms (80 columns each) and chain breaks."""

    lines: list[str] = field(default_factory=list)
    crystal: str | None = None

    @property
    def atoms(self) -> list[str]:
        return [line for line in self.lines if line[:6] in _ATOMS]


def read_pdb(path: Path, frame: int | None = None) -> FileContent:
    """Read all atoms of one frame of a PDB file.

    Parameters
    ----------
    path : path
    frame : int, optional
        By default the last one.

    Raises
    ------
    InputError
        If a record cannot be parsed, an element cannot be deduced, or there is no such frame.
    """
    frames, connects, scales = _split(path)
    chosen = frames[choose_frame(path, frame, len(frames))]
    content = _content(path, chosen, connects, scales)
    content.frames = len(frames)
    return content


def pdb_frames(path: Path) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Positions (shape (N, 3), Å) and cell (Å) of every frame, in the order of :func:`read_pdb`."""
    frames, _, scales = _split(path)
    result = []
    for chosen in frames:
        kept, _ = _single_locations(path, chosen.lines)
        kept = [line for line in kept if line[:6] in _ATOMS and not _is_site(line)]
        positions, cell = _positions(path, kept), _cell(path, chosen.crystal)
        result.append((positions @ _turn(cell, scales), cell))
    return result


# ---------------------------------------------------------------------------------------- records


def _split(path: Path) -> tuple[list[_Frame], list[str], dict[int, list[float]]]:
    """Frames with atoms, CONECT records, and SCALE records by number."""
    frames, connects, scales = [_Frame()], [], {}
    crystal = None
    with open(path, encoding="utf-8-sig", errors="replace") as handle:
        for line in handle:
            tag = line[:6].ljust(6)
            if tag in _ATOMS and len(line.rstrip()) < 54:
                expected = "a record with coordinates in columns 31 to 54"
                raise InputError(describe(f"line of {path}", line.rstrip(), expected))
            if tag in _ATOMS or tag[:3] == "TER":
                frames[-1].lines.append(line.rstrip("\r\n").ljust(80))
            elif tag == "CRYST1":
                crystal = line
            elif tag == "CONECT":
                connects.append(line)
            elif tag[:5] == "SCALE" and tag[5] in "123":
                scales[int(tag[5])] = [_number(path, line, k, k + 10) for k in (10, 20, 30)]
            if tag[:3] == "END" and frames[-1].atoms:
                frames.append(_Frame())
            frames[-1].crystal = crystal
    return [frame for frame in frames if frame.atoms], connects, scales


def _number(path: Path, line: str, start: int, end: int) -> float:
    try:
        value = float(line[start:end])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        where = f"columns {start + 1} to {end} of {path}"
        raise InputError(describe(where, line.rstrip(), "a number"))
    return value


def _positions(path: Path, atoms: list[str]) -> np.ndarray:
    rows = [[_number(path, line, k, k + 8) for k in (30, 38, 46)] for line in atoms]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _cell(path: Path, crystal: str | None) -> np.ndarray | None:
    if crystal is None:
        return None
    columns = ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))
    return cell_of_parameters(path, [_number(path, crystal, *c) for c in columns])


def _turn(cell: np.ndarray | None, scales: dict[int, list[float]]) -> np.ndarray:
    """Rotation R, shape (3, 3), from the axes of the file to those of ``cell``: ``positions @ R``.

    SCALE records give the orientation of the cell, but some programs write invalid ones.
    """
    if cell is None or sorted(scales) != [1, 2, 3]:
        return np.eye(3)
    fractional = np.array([scales[k] for k in (1, 2, 3)])
    if abs(np.linalg.det(fractional)) < 1e-12:
        return np.eye(3)
    turned = np.linalg.inv(fractional).T
    if not np.allclose(turned @ turned.T, cell @ cell.T, atol=_SAME_CELL * (cell @ cell.T).max()):
        return np.eye(3)
    left, _, right = np.linalg.svd(np.linalg.inv(turned) @ cell)
    rotation = left @ right
    return rotation if np.abs(rotation - np.eye(3)).max() > 1e-3 else np.eye(3)


def _readable(path: Path, connects: list[str]) -> str:
    """CONECT records that OpenMM can read, as text; others are dropped and reported."""

    def serial(field: str) -> bool:
        return _HEX.fullmatch(field) is not None

    kept = [
        line
        for line in connects
        if all(serial(line.rstrip()[k : k + 5].strip()) for k in range(6, len(line.rstrip()), 5))
    ]
    if len(kept) < len(connects):
        dropped = len(connects) - len(kept)
        notify(f"structure: {dropped} CONECT records of {path} cannot be read, nor their bonds")
    return "".join(kept)


# ---------------------------------------------------------------------------------------- pitfalls


def _content(
    path: Path, frame: _Frame, connects: list[str], scales: dict[int, list[float]]
) -> FileContent:
    lines, dropped = _single_locations(path, frame.lines)
    say_locations(path, dropped)
    lines = _unique_names(_with_elements(path, lines))
    cell = _cell(path, frame.crystal)
    if cell is not None and frame.crystal is not None:
        say_space_group(path, frame.crystal[55:66])
    atoms = [line for line in lines if line[:6] in _ATOMS]
    symbols = [line[76:78].strip() for line in atoms]
    formal = [line[78:80] for line in atoms]
    return FileContent(
        tuple(None if symbol == "EP" else known_element(symbol) for symbol in symbols),
        tuple(line[12:16].strip() for line in atoms),
        tuple((_residue(line), line[22:27].strip()) for line in atoms),
        _positions(path, atoms) @ _turn(cell, scales),
        cell,
        sum_of_formal_charges(path, formal),
        source="".join(f"{line}\n" for line in lines) + _readable(path, connects),
    )


def _residue(line: str) -> str:
    """Residue name of three columns (four in some programs), left- or right-justified."""
    return line[17:21].strip()


def _single_locations(path: Path, lines: list[str]) -> tuple[list[str], int]:
    """Keep one set of alternate locations in each residue; see :func:`.single_locations`."""
    atoms = [line for line in lines if line[:6] in _ATOMS]
    if not any(line[16] != " " for line in atoms):
        return lines, 0
    sites = [
        Location(
            line[21:27],
            _residue(line),
            line[12:16].strip(),
            line[16].strip(),
            _occupancy(line),
            [_number(path, line, k, k + 8) for k in (30, 38, 46)],
        )
        for line in atoms
    ]
    choice = iter(single_locations(sites))
    kept = [
        f"{line[:16]} {line[17:]}" if line[:6] in _ATOMS else line
        for line in lines
        if line[:6] not in _ATOMS or next(choice)
    ]
    return kept, len(lines) - len(kept)


def _occupancy(line: str) -> float:
    try:
        return float(line[54:60])
    except ValueError:
        return 1.0


def _is_site(line: str) -> bool:
    symbol = line[76:78].strip().upper()
    return symbol == "EP" or (known_element(symbol) is None and is_site(line[12:16], line[17:21]))


def _with_elements(path: Path, lines: list[str]) -> list[str]:
    """Deduce elements that are missing or impossible in their residue, and report them."""
    result, guesses = [], []
    for line in lines:
        if line[:6] in _ATOMS:
            residue, name = _residue(line), line[12:16]
            symbol = line[76:78].strip().rstrip("+-0123456789")
            element = known_element(symbol)
            if _is_site(line):
                symbol = "EP"
            elif element is None or not fits(symbol, residue):
                element = element_from_name(name, residue, aligned=True)
                if element is None:
                    got = f"atom {name.strip()!r} of {residue!r} with {symbol!r} in {path}"
                    raise InputError(describe("element", got, "a symbol in columns 77 and 78"))
                symbol = element
                guesses.append((name, symbol))
            line = f"{line[:76]}{symbol:>2}{line[78:]}"
        result.append(line)
    say_guesses(path, guesses)
    return result


def _unique_names(lines: list[str]) -> list[str]:
    """Split residues with repeated atom names into residues of one atom."""
    blocks: list[list[str]] = []
    last = None
    for line in lines:
        mark = (line[21:27], _residue(line)) if line[:6] in _ATOMS else None
        if mark != last or mark is None:
            blocks.append([])
        blocks[-1].append(line)
        last = mark
    repeated = [
        block[0][:6] in _ATOMS and len({line[12:16].strip() for line in block}) < len(block)
        for block in blocks
    ]
    result, number = [], 0
    for block, split in zip(blocks, repeated, strict=True):
        for index, line in enumerate(block):
            if line[:6] not in _ATOMS:
                result.append(line)
                continue
            number += index == 0 or split
            residue = _residue(line)
            name = f"{line[76:78].strip():<4}" if split and line[76:78] != "EP" else line[12:16]
            place = line[22:27] if not any(repeated) else f"{(number - 1) % 9999 + 1:4d} "
            result.append(f"{line[:12]}{name} {residue:<4}{line[21]}{place}{line[27:]}")
    return result
