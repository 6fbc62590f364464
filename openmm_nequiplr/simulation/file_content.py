"""What a structure file holds, before it becomes a structure for a simulation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import app, unit

from ..errors import InputError, describe, notify


@dataclass
class FileContent:
    """Atoms of one frame of a file.

    Parameters
    ----------
    topology : openmm.app.Topology
        Virtual sites, and they alone, have no element.
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
        Rows are lattice vectors, of any orientation.
    charge : float or None, e
        ``None`` if the file does not tell.
    frames : int
        Number of frames of the file.
    """

    topology: app.Topology
    positions: np.ndarray
    cell: np.ndarray | None = None
    charge: float | None = None
    frames: int = 1


def choose_frame(path: Path, frame: int | None, count: int) -> int:
    """Index of the frame to take, the last one by default; of several, it is said.

    Raises
    ------
    InputError
        If there is no such frame.
    """
    if count == 0:
        raise InputError(describe("structure", f"no atoms in {path}", "at least one atom"))
    if frame is None:
        if count > 1:
            notify(f"structure: of the {count} frames in {path}, the last one is taken")
        return count - 1
    if not -count <= frame < count:
        raise InputError(describe("frame", frame, f"one of the {count} frames in {path}"))
    return frame % count


def cell_of_parameters(path: Path, parameters: list[float]) -> np.ndarray | None:
    """Lattice vectors of lengths (Å) and angles (degrees), the first one along x.

    Cells of 1 × 1 × 1 Å or without extent are placeholders of structures without a cell.

    Returns
    -------
    numpy.ndarray, shape (3, 3), Å, or None
    """
    from ase.geometry import cellpar_to_cell

    if max(parameters[:3]) <= 1.0:
        if max(parameters[:3]) > 0.0:
            shown = " × ".join(f"{length:g}" for length in parameters[:3])
            notify(f"structure: the cell of {shown} Å in {path} is a placeholder, there is no box")
        return None
    return np.asarray(cellpar_to_cell(parameters))


def without_sites(path: Path, content: FileContent) -> FileContent:
    """Leave out virtual sites, on which the model does not act, and say so."""
    atoms = list(content.topology.atoms())
    kept = [atom.index for atom in atoms if atom.element is not None]
    if len(kept) == len(atoms):
        return content
    names = Counter(atom.name for atom in atoms if atom.element is None)
    shown = ", ".join(f"{name} {count}" for name, count in names.most_common(4))
    notify(
        f"structure: {len(atoms) - len(kept)} virtual sites in {path} are left out ({shown}), "
        f"{len(kept)} atoms remain"
    )
    modeller = app.Modeller(content.topology, content.positions * unit.angstrom)
    modeller.delete([atom for atom in atoms if atom.element is None])
    content.topology, content.positions = modeller.topology, content.positions[kept]
    return content


def say_space_group(path: Path, name: str) -> None:
    """Say that symmetry copies are not made, if there were any to make."""
    if "".join(name.split()).upper() not in ("", "P1", "1", "?", ".", "P11"):
        notify(
            f"structure: the symmetry {name.strip()} of {path} is not applied: its atoms are taken "
            "as they are listed"
        )
