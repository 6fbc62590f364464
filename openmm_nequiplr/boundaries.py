"""Boundary conditions: isolated, periodic in three directions, or a slab."""

# TorchScript compiles the functions of slabs and reads annotations: no postponed ones here
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from .errors import BoxError, InputError, describe, notify


class Pbc(NamedTuple):
    """Periodicity along each of the three cell vectors; true if periodic along any."""

    a: bool
    b: bool
    c: bool

    def __bool__(self) -> bool:
        return any(tuple(self))


FREE = Pbc(False, False, False)
BULK = Pbc(True, True, True)
#: Periodic along the first two cell vectors; the third one is the normal.
SLAB = Pbc(True, True, False)


def as_pbc(given: bool | Sequence[bool] | np.ndarray) -> Pbc:
    """Convert to one of :data:`FREE`, :data:`BULK` and :data:`SLAB`.

    Raises
    ------
    InputError
        If it is something else.
    """
    values = np.atleast_1d(np.asarray(given))
    flags = values.astype(bool)
    if values.shape not in {(1,), (3,)} or not np.array_equal(flags, values):
        raise InputError(describe("pbc", values.tolist(), "True or False, or three of these"))
    pbc = Pbc(*np.broadcast_to(flags, 3).tolist())
    if pbc not in (FREE, BULK, SLAB):
        expected = (
            "periodic in all three directions, in none, or along the first two cell vectors (a "
            "slab, with the third vector along its normal)"
        )
        raise InputError(describe("pbc", flags.tolist(), expected))
    return pbc


def made_for_periodic(metadata: Mapping[str, str]) -> bool:
    """Whether all training structures of a model were periodic, according to its metadata."""
    return metadata.get("periodic", "").lower() == "true"


def say_not_periodic(metadata: Mapping[str, str], what: str) -> None:
    """Warn of structures without a cell if all training structures of the model were periodic.

    Parameters
    ----------
    metadata : mapping of str to str
        Metadata of the model.
    what : str
        Subject of the message, with its verb.
    """
    if made_for_periodic(metadata):
        notify(
            f"pbc: {what} not periodic, but the model was trained on periodic structures only: "
            "the energies may be meaningless"
        )


def tilted(cell: torch.Tensor, slack: float = 1e-6) -> bool:
    """Whether the third of the cell vectors, shape (3, 3), is not perpendicular to the others.

    ``slack`` is the largest cosine that counts as zero.
    """
    lengths = torch.linalg.vector_norm(cell, dim=-1)
    overlap = (cell[:2] @ cell[2]).abs() - slack * lengths[2] * lengths[:2]
    return bool((overlap > 0.0).any())


def check_slab(cell: np.ndarray) -> None:
    """Check that a cell, shape (3, 3), Å, is suitable for a slab.

    Raises
    ------
    BoxError
        If the third vector is missing, or not perpendicular to the two others.
    """
    vectors = np.array(cell, dtype=np.float64)
    if vectors.shape != (3, 3):
        return  # reported elsewhere
    if not vectors[2].any():
        expected = (
            "a third vector along the normal that leaves vacuum (ase: atoms.center(vacuum=…))"
        )
        raise BoxError(describe("cell of a slab", vectors.tolist(), expected))
    if tilted(torch.from_numpy(vectors)):
        expected = "a third vector perpendicular to the two others, along the normal"
        raise BoxError(describe("cell of a slab", vectors.tolist(), expected))


def whole_slab(positions: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Unwrap a slab along its normal, so that the widest gap (the vacuum) is outside.

    The boundary of the cell is moved to the middle of that gap. Atoms that cross a face of the cell
    then do not jump. The first atom does not move.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
        The third vector is perpendicular to the others.

    Returns
    -------
    positions : torch.Tensor, float64, shape (N, 3), Å
    gap : float
        Width of the vacuum as a fraction of the cell.
    """
    place = positions @ (cell[2] / (cell[2] @ cell[2]))
    order = (place - torch.floor(place)).sort()[0]
    gaps = torch.cat((order[1:], order[:1] + 1.0)) - order
    widest = int(gaps.argmax())
    image = torch.floor(place - (order[widest] + 0.5 * gaps[widest]))
    moved = positions - (image - image[0]).unsqueeze(-1) * cell[2]
    return moved, float(gaps[widest])
