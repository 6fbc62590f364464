"""Reassembly of molecules that are split by periodic boundaries."""

from __future__ import annotations

import numpy as np

from .errors import InputError, describe


class WholeMolecules:
    """Unwrapping of molecules: atoms that are minimum images of each other are placed together.

    Atoms are joined along the minimum spanning tree of their minimum-image distances, starting from
    the first atom: bonds first, then the shortest gaps between molecules. The result depends only
    on positions modulo lattice vectors, apart from the first atom, which does not move. The tree of
    the last call is reused if it provably gives the same result.
    """

    def __init__(self) -> None:
        self._tree: list[tuple[int, int]] | None = None

    def __call__(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Unwrapped positions.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3), Å
        cell : numpy.ndarray, shape (3, 3), Å
            Rows are lattice vectors.

        Returns
        -------
        numpy.ndarray, shape (N, 3), Å
        """
        if len(positions) < 2:
            return positions
        cell = _reduced(cell)
        if self._tree is not None and len(self._tree) == len(positions) - 1:
            joined, longest = _joined(positions, cell, self._tree)
            if _unambiguous(joined, cell, longest):
                return joined
        self._tree = _spanning_tree(positions, cell)
        return _joined(positions, cell, self._tree)[0]


class WholeGroups:
    """Unwrapping of groups of atoms, so that each group is contiguous.

    Atoms are joined along the minimum spanning tree of the minimum-image distances in their group.
    The trees of the first structure are reused, so that groups are unwrapped consistently along a
    trajectory, even if they stretch. They are determined again when an edge exceeds half the cell.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (N,)
        Group of each atom.
    """

    def __init__(self, groups: np.ndarray) -> None:
        self._members = [np.flatnonzero(groups == k) for k in np.unique(groups)]
        self._tree: list[tuple[int, int]] | None = None

    def __call__(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Unwrapped positions; the first atom of each group does not move.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3), Å
        cell : numpy.ndarray, shape (3, 3), Å
            Rows are lattice vectors.

        Raises
        ------
        InputError
            If a group (nearly) touches its own images.
        """
        cell = _reduced(cell)
        if self._tree is not None:
            joined, longest = _joined(positions, cell, self._tree)
            if longest < 0.5 / np.linalg.norm(np.linalg.inv(cell), axis=0).max():
                return joined
        self._tree = []
        for number, members in enumerate(self._members):
            own = positions[members]
            tree = _spanning_tree(own, cell)
            joined, longest = _joined(own, cell, tree)
            if not _unambiguous(joined, cell, longest):
                got = f"group {number} of {len(members)} atoms, which reaches its own images"
                expected = "groups of atoms that are in one piece, for a field in a cell"
                raise InputError(describe("charge_groups", got, expected))
            self._tree += [(int(members[a]), int(members[b])) for a, b in tree]
        return _joined(positions, cell, self._tree)[0]


def _reduced(cell: np.ndarray) -> np.ndarray:
    """Reduced cell, for which rounding gives the minimum images."""
    products = np.abs(cell @ cell.T)
    if (2.0 * (products - np.diag(np.diag(products))) <= np.diag(products)).all():
        return cell
    from ase.geometry import minkowski_reduce

    return np.asarray(minkowski_reduce(cell)[0])


def _nearest(vectors: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Images of vectors, shape (M, 3), by rounding: minimum images if the vectors are short."""
    inverse = np.linalg.inv(cell)
    for row in (2, 1, 0):
        vectors = vectors - np.round(vectors @ inverse[:, row])[:, None] * cell[row]
    return vectors


def _joined(
    positions: np.ndarray, cell: np.ndarray, tree: list[tuple[int, int]]
) -> tuple[np.ndarray, float]:
    """Positions unwrapped along the edges (parent, child) of a tree, and its longest edge, Å."""
    if not tree:
        return positions, 0.0
    parents, children = np.array(tree).T
    steps = _nearest(positions[children] - positions[parents], cell)
    joined = positions.copy()
    raw = np.linalg.solve(cell.T, (positions[parents] + steps - positions[children]).T).T
    shifts = np.zeros_like(positions)
    for parent, child, shift in zip(parents, children, np.round(raw), strict=True):
        shifts[child] = shifts[parent] + shift
    joined += shifts @ cell
    return joined, float(np.linalg.norm(steps, axis=1).max())


def _unambiguous(positions: np.ndarray, cell: np.ndarray, longest: float) -> bool:
    """Whether no image of an atom is within the longest edge of another atom.

    If so, any tree without longer edges joins the same images.
    """
    normals = np.linalg.inv(cell)
    widths = 1.0 / np.linalg.norm(normals, axis=0)
    extents = np.ptp(positions @ normals, axis=0) * widths
    return bool((extents + longest < widths).all())


def _spanning_tree(positions: np.ndarray, cell: np.ndarray) -> list[tuple[int, int]]:
    """Edges (parent, child) of the minimum spanning tree by Prim's algorithm, from atom 0."""
    count = len(positions)
    distance, parent = np.full(count, np.inf), np.zeros(count, dtype=np.int64)
    outside = np.ones(count, dtype=bool)
    tree, newest = [], 0
    for _ in range(count - 1):
        outside[newest] = False
        apart = np.linalg.norm(_nearest(positions - positions[newest], cell), axis=1)
        closer = outside & (apart < distance)
        distance[closer], parent[closer] = apart[closer], newest
        newest = int(np.argmin(np.where(outside, distance, np.inf)))
        tree.append((int(parent[newest]), newest))
    return tree
