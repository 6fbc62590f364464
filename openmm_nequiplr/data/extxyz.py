"""Extended XYZ files, read through ASE."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..boundaries import as_pbc
from ..conditions import flat
from ..errors import InputError, describe
from ..files.ase_frames import ase_frames, check_cell_entry
from .checking import Say, converted, finish, ignored_labels
from .keys import DEFAULT_KEYS, DataKeys, FoundKeys
from .quantities import NAMED
from .store import Keep
from .structure import Structure
from .units import DataUnits

if TYPE_CHECKING:
    from ase import Atoms


def read_extxyz(
    path: str | Path,
    keys: DataKeys | None = None,
    units: DataUnits | None = None,
    say: Say = print,
    found: FoundKeys | None = None,
    keep: Keep = list,
) -> Sequence[Structure]:
    """Read every frame of an extended XYZ file, converted to Å, eV and e.

    Parameters
    ----------
    path : path
    keys : DataKeys, optional
        Names of the labels.
    units : DataUnits, optional
        By default Å and eV.
    say : callable
        Called with each note on the data.
    found : FoundKeys, optional
        Receives the keys of the file.
    keep : callable
        Converts the iterable of structures to a sequence.

    Returns
    -------
    sequence of Structure

    Raises
    ------
    InputError
        If the file cannot be parsed, a frame is neither periodic, nor a slab, nor isolated, a key
        named in `keys` is in no frame, or distances are implausible in the unit of length.
    """
    keys = keys or DataKeys()
    check_frames(path)
    used: dict[str, set[str]] = {}
    names: Counter[frozenset[str]] = Counter()
    own = "angstrom", "eV"
    structures = keep(converted(_frames(path, keys, used, names), path, units, own))
    for quantity, name in keys.named().items():
        if quantity not in used:
            raise InputError(
                describe(
                    f"keys.{quantity}", f"{name!r}, in no frame of {path}", "a key of the file"
                )
            )
    taken = {name for each in used.values() for name in each}
    ignored = ignored_labels(frozenset[str]().union(*names), taken)
    if found is not None:
        found.ignored.update(ignored)
        for quantity, known in used.items():
            found.used.setdefault(quantity, set()).update(known)
    _report_keys(path, names, used, ignored, say)
    return finish(structures, path, units, own, tuple(keys.named()), say)


def _frames(
    path: str | Path, keys: DataKeys, used: dict[str, set[str]], names: Counter[frozenset[str]]
) -> Iterator[Structure]:
    """Frames in the units of the file; the names of their labels are counted in ``names``."""
    frames = ase_frames(path, "extxyz")
    for number in itertools.count():
        try:
            atoms = next(frames, None)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # ASE raises many unrelated types on malformed files
            reason = f"unknown element {error}" if isinstance(error, KeyError) else error
            raise InputError(
                describe("data file", f"{path} ({reason})", "a readable extended XYZ file")
            ) from error
        if atoms is None:
            return
        names[_names(atoms)] += 1
        try:
            check_cell_entry(atoms)
            yield structure_from_atoms(atoms, keys, used)
        except InputError as error:
            raise InputError(f"{path}, frame {number}: {error}") from None


def check_frames(path: str | Path) -> None:
    """Check the number of lines of every frame, before memory is allocated for them.

    Raises
    ------
    InputError
        If a frame is shorter than declared, there is text between or after frames, or there is no
        frame.
    """
    from ase.io.formats import open_with_compression

    number = frames = 0

    def refuse(got: str, expected: str) -> InputError:
        return InputError(describe("data file", f"{path}, line {number}: {got}", expected))

    try:
        with open_with_compression(str(path), "r") as handle:
            line = handle.readline()
            while line.strip():
                number += 1
                count = int(line) if line.strip().isdecimal() and len(line) < 20 else 0
                if count < 1:
                    raise refuse(line.strip()[:40], "a number of atoms above 0, as in extended XYZ")
                there = sum(1 for _ in itertools.islice(handle, count + 1))
                if there <= count:
                    got = f"{count} atoms declared, {max(there - 1, 0)} lines of atoms present"
                    raise refuse(got, "a line for each atom")
                number, frames = number + there, frames + 1
                line = handle.readline()
                while line.lstrip().startswith("VEC"):
                    number, line = number + 1, handle.readline()
            if any(rest.strip() for rest in handle):
                raise refuse("text after an empty line", "frames without empty lines between them")
    except UnicodeDecodeError as error:
        expected = "an extended XYZ file in UTF-8"
        raise InputError(describe("data file", f"{path} ({error})", expected)) from None
    if not frames:
        raise InputError(describe("data file", f"{path} without a frame", "one frame or more"))


def _report_keys(
    path: str | Path,
    names: Counter[frozenset[str]],
    used: dict[str, set[str]],
    ignored: Sequence[str],
    say: Say,
) -> None:
    """Report labels that are read under several names, and labels that are not read."""
    if ignored:
        rest = ", ".join(ignored)
        say(f"{path}: labels ignored: {rest} (set data.keys to read them)")
    for quantity, own in used.items():
        if len(own) > 1:
            say(f"{path}: {quantity} under several names: {', '.join(sorted(own))}")
    charged = used.get("total_charge", set())
    bare = sum(count for own, count in names.items() if charged.isdisjoint(own))
    if bare:
        say(f"{path}: total charge 0 assumed in {bare} of {names.total()} structures")


def _names(atoms: Atoms) -> frozenset[str]:
    """Names of the columns, keys and results of a frame."""
    results = {} if atoms.calc is None else atoms.calc.results
    return frozenset([*atoms.arrays, *atoms.info, *results])


def structure_from_atoms(
    atoms: Atoms, keys: DataKeys | None = None, used: dict[str, set[str]] | None = None
) -> Structure:
    """Convert one ASE ``Atoms`` object.

    Parameters
    ----------
    atoms : ase.Atoms
        Labels are read from ``info``, ``arrays`` and the results of the calculator.
    keys : DataKeys, optional
        Names of the labels.
    used : dict of str to set of str, optional
        Receives the key from which each quantity was read.

    Returns
    -------
    Structure
    """
    keys = keys or DataKeys()
    pbc = as_pbc(atoms.pbc)
    labels: dict[str, Any] = {}
    for quantity in DEFAULT_KEYS:
        name, value = _lookup(atoms, quantity, keys.candidates(quantity))
        if value is None:
            continue
        labels[quantity] = _AS_IS.get(quantity, lambda given: given)(value)
        if used is not None:
            used.setdefault(quantity, set()).add(name)
    if "group_charges" in labels:
        labels.setdefault("total_charge", float(np.sum(labels["group_charges"])))
    return Structure(
        symbols=tuple(atoms.get_chemical_symbols()),
        positions=atoms.get_positions(),
        cell=np.asarray(atoms.cell) if pbc else None,
        pbc=pbc,
        **labels,
    )


def _lookup(atoms: Atoms, quantity: str, names: tuple[str, ...]) -> tuple[str, Any]:
    """Find the first of `names` in a frame, and its value; ("", None) if there is none.

    ASE moves labels with plain names to a calculator.
    """
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    homes = (atoms.arrays, results) if NAMED[quantity].per_atom else (atoms.info, results)
    for name in names:
        for home in homes:
            if home.get(name) is not None:
                return name, home[name]
    return "", None


def _full(name: str) -> Callable[[Any], np.ndarray]:
    """Function that forms a tensor, shape (3, 3), of six (xx yy zz yz xz xy) or nine numbers."""

    def tensor(value: Any) -> np.ndarray:
        given = np.asarray(value, dtype=np.float64)
        if given.size == 6:
            xx, yy, zz, yz, xz, xy = given.ravel()
            return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        if given.size == 9:
            return given.reshape(3, 3)
        raise InputError(describe(name, f"{given.size} numbers", "six or nine numbers"))

    return tensor


def _of_atoms(value: Any) -> np.ndarray:
    """Convert nine columns to one tensor per atom, shape (N, 3, 3), row by row."""
    given = np.asarray(value)
    return given.reshape(-1, 3, 3) if given.shape[1:] == (9,) else given


#: Conversions of labels whose shape ASE changes.
_AS_IS: dict[str, Callable[[Any], Any]] = {
    "stress": _full("stress"),
    "polarizability": _full("polarizability"),
    "born_charges": _of_atoms,
    "group_charges": flat,
}
