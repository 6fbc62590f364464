"""Content of a structure file, before its conversion to a structure for a simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, describe, notify


@dataclass
class FileContent:
    """Atoms of one frame of a file, virtual sites included.

    Parameters
    ----------
    symbols : tuple of str or None, length N
        Element symbols, ``D`` for deuterium; ``None`` for virtual sites.
    names : tuple of str, length N
    residues : tuple of (str, str), length N
        Name and number of each atom's residue.
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
        Rows are lattice vectors, of any orientation.
    charge : float or None, e
        ``None`` if the file does not contain it.
    frames : int
        Number of frames in the file.
    source : object, optional
        The frame in a form from which OpenMM can build a topology.
    """

    symbols: tuple[str | None, ...]
    names: tuple[str, ...]
    residues: tuple[tuple[str, str], ...]
    positions: np.ndarray
    cell: np.ndarray | None = None
    charge: float | None = None
    frames: int = 1
    source: Any = None

    @property
    def atoms(self) -> list[int]:
        """Indices of the atoms, without virtual sites."""
        return [index for index, symbol in enumerate(self.symbols) if symbol is not None]


def say_sites(path: Path, content: FileContent) -> None:
    """Report that virtual sites, on which a model does not act, are left out."""
    kept = len(content.atoms)
    if kept < len(content.symbols):
        pairs = zip(content.symbols, content.names, strict=True)
        names = Counter(name.strip() for symbol, name in pairs if symbol is None)
        shown = ", ".join(f"{name} {count}" for name, count in names.most_common(4))
        notify(
            f"structure: {len(content.symbols) - kept} virtual sites in {path} are left out "
            f"({shown}), {kept} atoms remain"
        )


def choose_frame(path: Path, frame: int | None, count: int) -> int:
    """Index of the frame to read, by default the last one, which is reported if there are several.

    Raises
    ------
    InputError
        If there is no such frame.
    """
    if count == 0:
        raise InputError(describe("structure", f"no atoms in {path}", "at least one atom"))
    if frame is None:
        if count > 1:
            notify(f"structure: of the {count} frames in {path}, the last one is used")
        return count - 1
    if not -count <= frame < count:
        raise InputError(describe("frame", frame, f"one of the {count} frames in {path}"))
    return frame % count


def cell_of_parameters(path: Path, parameters: list[float]) -> np.ndarray | None:
    """Lattice vectors from lengths (Å) and angles (degrees), the first one along x.

    Cells of 1 × 1 × 1 Å or of zero size are placeholders in structures without a cell.

    Returns
    -------
    numpy.ndarray, shape (3, 3), Å, or None
    """
    from ase.geometry import cellpar_to_cell

    if min(parameters[:3]) < 0.0 or not all(0.0 < angle < 180.0 for angle in parameters[3:]):
        expected = "lengths above 0 Å and angles between 0 and 180 degrees"
        raise InputError(describe("cell", f"{parameters} in {path}", expected))
    if max(parameters[:3]) <= 1.0:
        if max(parameters[:3]) > 0.0:
            shown = " × ".join(f"{length:g}" for length in parameters[:3])
            notify(f"structure: the cell of {shown} Å in {path} is a placeholder and is ignored")
        return None
    try:
        return np.asarray(cellpar_to_cell(parameters))
    except AssertionError:
        expected = "angles that three vectors can have"
        raise InputError(describe("cell", f"{parameters} in {path}", expected)) from None


def sum_of_formal_charges(path: Path, texts: Iterable[str]) -> float | None:
    """Total charge in e of formal charges such as ``2-``, ``+1``, ``-``, empty for 0, reported.

    Returns
    -------
    float or None
        ``None`` if all are 0, or the column contains something else, which is reported.
    """
    charges = []
    for text in (each.strip() for each in texts):
        sign, number = text.strip("0123456789"), text.strip("+-")
        if sign not in ("+", "-"):
            if text.strip("0"):
                notify(f"total charge: formal charges in {path} are not read ({text!r} is none)")
                return None
            continue
        charges.append(int(f"{sign}{number or 1}"))
    if not any(charges):
        return None
    notify(f"total charge: {sum(charges):+d} e, the sum of the formal charges in {path}")
    return float(sum(charges))


def say_space_group(path: Path, name: str) -> None:
    """Report that the space group is not applied, if it has symmetry operations."""
    if "".join(name.split()).upper() not in ("", "P1", "1", "?", ".", "P11"):
        notify(
            f"structure: the space group {name.strip()} of {path} is not applied: only the listed "
            "atoms are used"
        )


def is_mmcif(path: Path) -> bool:
    """Whether a CIF file is an mmCIF file, with tags such as ``_atom_site.id``."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        return any(line.lstrip().lower().startswith("_atom_site.") for line in handle)
