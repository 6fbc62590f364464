"""Lattice bases: reduction, and matching of two cells of a lattice.

A lattice has many bases, and sums over pairs and k-vectors cost least in one of short vectors. The
reduction is Minkowski's in three dimensions (Nguyen and Stehlé 2009, doi:10.1145/1597036.1597050).
Unlike the versions in libraries, it can be compiled by TorchScript.
"""

import math

import numpy as np

from .errors import BoxError, describe

#: A cell is reduced only if a vector becomes shorter by more than this relative amount.
SLACK = 0.02

#: Shortest vector of a cell that is accepted, Å; shorter than in any crystal.
SHORTEST = 0.5

_ONE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def _square(vector: list[float]) -> float:
    return vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]


def _less(cell: list[list[float]], row: int, first: int, second: int, steps: list[int]) -> float:
    """Squared length, Å², of a row minus multiples of the two others."""
    rest = [0.0, 0.0, 0.0]
    for axis in range(3):
        rest[axis] = cell[row][axis] - steps[0] * cell[first][axis] - steps[1] * cell[second][axis]
    return _square(rest)


def _best_steps(cell: list[list[float]], row: int, bound: float) -> list[int]:
    """Multiples of the two other rows to subtract from a row to make it shorter than a bound."""
    first, second = (row + 1) % 3, (row + 2) % 3
    best, least = [0, 0], bound
    tried = [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]]
    for axis, other in enumerate([first, second]):
        overlap = 0.0
        for i in range(3):
            overlap += cell[row][i] * cell[other][i]
        whole = math.floor(overlap / max(_square(cell[other]), 1e-300) + 0.5)
        tried.append([whole, 0] if axis == 0 else [0, whole])
    for steps in tried:
        size = _less(cell, row, first, second, steps)
        if size < least:
            best, least = steps, size
    return best


def reduction(cell: list[list[float]], slack: float = SLACK) -> list[list[int]]:
    """Integer matrix M for which M·cell is a basis of short vectors.

    Parameters
    ----------
    cell : list of 3 lists of 3 floats, Å
        Rows are linearly independent lattice vectors of any handedness.
    slack : float
        If no vector becomes shorter by more than this relative amount, M is the identity, so that
        small fluctuations of a cell do not change its basis. Other cells are fully reduced.

    Returns
    -------
    list of 3 lists of 3 ints
        The determinant is one.
    """
    basis = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    vectors = [row[:] for row in cell]
    keep = (1.0 - slack) * (1.0 - slack)
    for _ in range(1000):
        changed = False
        for row in range(3):
            steps = _best_steps(vectors, row, keep * _square(vectors[row]))
            if steps[0] != 0 or steps[1] != 0:
                changed, keep = True, 1.0 - 1e-9
                for i in range(3):
                    basis[row][i] -= steps[0] * basis[(row + 1) % 3][i]
                    basis[row][i] -= steps[1] * basis[(row + 2) % 3][i]
                    vectors[row][i] -= steps[0] * vectors[(row + 1) % 3][i]
                    vectors[row][i] -= steps[1] * vectors[(row + 2) % 3][i]
        if not changed:
            break
    return basis


def reduced_basis(cell: np.ndarray, slack: float = SLACK) -> np.ndarray | None:
    """M of :func:`reduction`, float64, shape (3, 3); ``None`` for the identity.

    Parameters
    ----------
    cell : numpy.ndarray, float64, shape (3, 3), Å
    slack : float
    """
    if np.count_nonzero(cell) == 3 and cell.diagonal().all():
        return None
    basis = reduction(cell.tolist(), slack)
    return None if basis == _ONE else np.array(basis, dtype=np.float64)


def reduced(cell: np.ndarray, slack: float = SLACK) -> np.ndarray:
    """Reduced cell of short vectors, shape (3, 3), Å; arguments as for :func:`reduced_basis`."""
    basis = reduced_basis(cell, slack)
    return cell if basis is None else basis @ cell


def displacements(
    positions: np.ndarray, before: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of atoms modulo lattice vectors, and the lattice vectors removed.

    Parameters
    ----------
    positions, before : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors.

    Returns
    -------
    moved : numpy.ndarray, shape (N, 3), Å
        Valid if no atom moves by more than half a cell.
    images : numpy.ndarray, shape (N, 3)
        Integers in units of the lattice vectors.
    """
    moved = positions - before
    images = np.rint(moved @ np.linalg.inv(cell))
    if images.any():
        moved -= images @ cell
    return moved, images


def matched(cell: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cell in the lattice basis that is closest to another cell.

    Flexible barostats change the basis of a lattice after a large shear, without moving atoms. The
    result and ``target`` differ only by a strain.

    Parameters
    ----------
    cell, target : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors of cells that differ by a strain and the choice of the basis.

    Returns
    -------
    numpy.ndarray, shape (3, 3), Å
        ``cell`` itself if the two lattices differ in another way.
    """
    if np.array_equal(cell, target):
        return cell
    basis = np.rint(target @ np.linalg.inv(cell))
    if round(abs(float(np.linalg.det(basis)))) != 1:
        return cell
    return basis @ cell


def continued(
    positions: np.ndarray, cell: np.ndarray, before: np.ndarray, cell_before: np.ndarray
) -> np.ndarray:
    """Unwrap positions so that they are continuous with those of the previous frame.

    Valid if no atom moves by more than half a cell between the frames, apart from the strain.

    Parameters
    ----------
    positions, before : numpy.ndarray, shape (N, 3), Å
    cell, cell_before : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors, in any basis.

    Returns
    -------
    numpy.ndarray, shape (N, 3), Å
    """
    strained = before @ np.linalg.solve(matched(cell_before, cell), cell)
    return positions - displacements(positions, strained, cell)[1] @ cell


def check_cell(cell: object, shortest: float = SHORTEST) -> np.ndarray:
    """Return a cell as a float64 array of shape (3, 3), with vectors of at least ``shortest`` Å.

    Raises
    ------
    BoxError
        If the shape is wrong, a number is not finite, or the vectors are linearly dependent or
        shorter than those of any crystal.
    """
    found = np.asarray(cell, dtype=np.float64)
    if found.shape != (3, 3):
        raise BoxError(describe("cell", f"shape {found.shape}", "shape (3, 3), rows are vectors"))
    if not np.isfinite(found).all():
        raise BoxError(describe("cell", found.tolist(), "finite numbers"))
    lengths = np.linalg.norm(found, axis=1)
    flat = abs(float(np.linalg.det(found))) <= 1e-8 * float(np.prod(lengths))
    if flat or lengths.min() < shortest:
        expected = "three independent vectors" + f" of at least {shortest:g} Å" * (shortest > 0.0)
        raise BoxError(describe("cell", found.tolist(), expected))
    return found
