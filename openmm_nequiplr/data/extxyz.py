"""Extended XYZ files, read through ASE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, describe
from .keys import DEFAULT_KEYS, DataKeys
from .structure import Structure

if TYPE_CHECKING:
    from ase import Atoms

_PER_ATOM = frozenset({"forces", "charges"})


def read_extxyz(path: str | Path, keys: DataKeys | None = None) -> list[Structure]:
    """Read every frame of an extended XYZ file.

    Parameters
    ----------
    path : path
        The file; units are Å, eV, e.
    keys : DataKeys, optional
        Names of the labels.

    Returns
    -------
    list of Structure

    Raises
    ------
    InputError
        If the file cannot be parsed, a frame is periodic in some directions only, or a key
        named in `keys` is in no frame.
    """
    from ase.io import read

    keys = keys or DataKeys()
    try:
        frames = read(str(path), index=":", format="extxyz")
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # ASE raises many unrelated types on malformed files
        raise InputError(
            describe("data file", f"{path} ({error})", "a readable extended XYZ file")
        ) from error
    if not frames:
        raise InputError(describe("data file", f"{path} without a frame", "one frame or more"))
    found: set[str] = set()
    structures = []
    for number, atoms in enumerate(frames):
        try:
            structures.append(structure_from_atoms(atoms, keys, found))
        except InputError as error:
            raise InputError(f"{path}, frame {number}: {error}") from None
    for quantity, name in keys.named().items():
        if quantity not in found:
            raise InputError(
                describe(
                    f"keys.{quantity}", f"{name!r}, in no frame of {path}", "a key of the file"
                )
            )
    return structures


def structure_from_atoms(
    atoms: Atoms, keys: DataKeys | None = None, found: set[str] | None = None
) -> Structure:
    """Convert one ASE ``Atoms`` object.

    Parameters
    ----------
    atoms : ase.Atoms
        Labels are looked for in ``info``, ``arrays`` and the results of its calculator.
    keys : DataKeys, optional
        Names of the labels.
    found : set of str, optional
        Receives the names of the quantities that are there.

    Returns
    -------
    Structure
    """
    keys = keys or DataKeys()
    pbc = np.asarray(atoms.pbc, dtype=bool)
    if pbc.any() and not pbc.all():
        raise InputError(
            describe("pbc", pbc.tolist(), "periodic in all three directions or in none")
        )
    labels: dict[str, Any] = {}
    for quantity in DEFAULT_KEYS:
        value = _lookup(atoms, quantity, keys.candidates(quantity))
        if value is None:
            continue
        labels[quantity] = _full_stress(value) if quantity == "stress" else value
        if found is not None:
            found.add(quantity)
    return Structure(
        symbols=tuple(atoms.get_chemical_symbols()),
        positions=atoms.get_positions(),
        cell=np.asarray(atoms.cell) if pbc.all() else None,
        pbc=bool(pbc.all()),
        **labels,
    )


def _lookup(atoms: Atoms, quantity: str, names: tuple[str, ...]) -> Any:
    """The first of `names` that the frame has; ASE moves plain names to a calculator."""
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    homes = (atoms.arrays, results) if quantity in _PER_ATOM else (atoms.info, results)
    for name in names:
        for home in homes:
            if home.get(name) is not None:
                return home[name]
    return None


def _full_stress(value: Any) -> np.ndarray:
    """A [3, 3] tensor out of six (xx yy zz yz xz xy) or nine numbers."""
    stress = np.asarray(value, dtype=np.float64)
    if stress.size == 6:
        xx, yy, zz, yz, xz, xy = stress.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if stress.size == 9:
        return stress.reshape(3, 3)
    raise InputError(describe("stress", f"{stress.size} numbers", "six or nine numbers"))
