"""Bases of a lattice: the reduced one, and the one that another cell is written in.

One lattice has many bases, and sums over pairs and waves cost least in one of short vectors. The
reduction is Minkowski's in three dimensions (Nguyen and Stehlé 2009, doi:10.1145/1597036.1597050).
It is written so that TorchScript compiles it, which no library's is.
"""

import math

import numpy as np

#: A cell stays as it is if no vector gets shorter by more than this (relative) in another basis.
SLACK = 0.02


_ONE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def _square(vector: list[float]) -> float:
    return vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]


def _less(cell: list[list[float]], row: int, first: int, second: int, steps: list[int]) -> float:
    """Squared length of a row less multiples of the two others, Å²."""
    rest = [0.0, 0.0, 0.0]
    for axis in range(3):
        rest[axis] = cell[row][axis] - steps[0] * cell[first][axis] - steps[1] * cell[second][axis]
    return _square(rest)


def _best_steps(cell: list[list[float]], row: int, bound: float) -> list[int]:
    """Multiples of the two rows after a row to take from it, if it falls below a squared length."""
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
    """Whole numbers M that make a basis M·cell of short vectors out of a cell.

    Parameters
    ----------
    cell : list of 3 lists of 3 floats, Å
        Rows are lattice vectors that span a volume, of any handedness.
    slack : float
        A cell stays as it is (M is one) if no vector gets shorter by more than this in another
        basis, so that cells that fluctuate about such a border keep theirs. Others are reduced
        fully.

    Returns
    -------
    list of 3 lists of 3 ints
        Of determinant one.
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
    """M of :func:`reduction` as whole numbers in an array, float64, shape (3, 3); none for one.

    Parameters
    ----------
    cell : numpy.ndarray, float64, shape (3, 3), Å
        Rows are lattice vectors that span a volume.
    slack : float
        As for :func:`reduction`.
    """
    if np.count_nonzero(cell) == 3 and cell.diagonal().all():
        return None
    basis = reduction(cell.tolist(), slack)
    return None if basis == _ONE else np.array(basis, dtype=np.float64)


def reduced(cell: np.ndarray, slack: float = SLACK) -> np.ndarray:
    """The lattice of a cell in a basis of short vectors, shape (3, 3), Å; arguments as above."""
    basis = reduced_basis(cell, slack)
    return cell if basis is None else basis @ cell


def displacements(
    positions: np.ndarray, before: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far atoms have moved, modulo lattice vectors, and how many of these they have jumped by.

    Parameters
    ----------
    positions, before : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors.

    Returns
    -------
    moved : numpy.ndarray, shape (N, 3), Å
        Right while no atom really moves by more than half a cell.
    images : numpy.ndarray, shape (N, 3)
        Whole numbers.
    """
    moved = positions - before
    images = np.rint(moved @ np.linalg.inv(cell))
    if images.any():
        moved -= images @ cell
    return moved, images


def matched(cell: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The lattice of a cell in the basis that is nearest to another cell.

    Flexible barostats write a lattice by other vectors once it has sheared far enough; no atom
    moves then. Between the result and ``target`` is the strain alone.

    Parameters
    ----------
    cell, target : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors, of cells that differ by some strain and the choice of the basis.

    Returns
    -------
    numpy.ndarray, shape (3, 3), Å
        ``cell`` itself if the two lattices differ by more than that.
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
    """Positions at the images that continue those of a frame before.

    Right while no atom moves by more than half a cell between the frames, beyond the strain.

    Parameters
    ----------
    positions, before : numpy.ndarray, shape (N, 3), Å
    cell, cell_before : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors, of any bases.

    Returns
    -------
    numpy.ndarray, shape (N, 3), Å
    """
    strained = before @ np.linalg.solve(matched(cell_before, cell), cell)
    return positions - displacements(positions, strained, cell)[1] @ cell
