"""RuNNer (and n2p2) ``input.data`` files.

A structure consists of the lines ``begin``, ``comment …``, three ``lattice`` lines if periodic,
``atom x y z element charge energy fx fy fz`` for each atom, ``energy E``, ``charge Q`` and ``end``.
The format prescribes no units. Lengths are read in Bohr and energies in Hartree, the units of
RuNNer, unless the user states others; charges are in e.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..boundaries import BULK, FREE
from ..errors import InputError, describe
from .checking import Say, converted, finish
from .store import Keep
from .structure import Structure
from .units import DataUnits


def read_runner(
    path: str | Path, units: DataUnits | None = None, say: Say = print, keep: Keep = list
) -> Sequence[Structure]:
    """Read every structure of an ``input.data`` file, converted to Å, eV and e.

    The format has columns for charges and forces even if they are unknown. Charges, forces and
    energies that are zero in the whole file are therefore treated as unknown.

    Parameters
    ----------
    path : path
    units : DataUnits, optional
        By default Bohr and Hartree.
    say : callable
        Called with each note on the data.
    keep : callable
        Converts the iterable of structures to a sequence.

    Raises
    ------
    InputError
        If a line cannot be parsed (with file and line number), or if distances are implausible in
        the unit of length.
    """
    own, assumed = ("bohr", "hartree"), 0

    def frames() -> Iterator[Structure]:
        nonlocal assumed
        for number, block in enumerate(_blocks(path)):
            assumed += block.total_charge is None
            try:
                yield block.structure()
            except InputError as error:
                raise InputError(f"{path}, structure {number}: {error}") from None

    structures = keep(converted(frames(), path, units, own))
    if assumed:
        say(f"{path}: total charge 0 assumed in {assumed} of {len(structures)} structures")
    return finish(structures, path, units, own, say=say)


def _blocks(path: str | Path) -> Iterator[_Block]:
    """Blocks between each ``begin`` and its ``end``."""
    block: _Block | None = None
    found = False
    with open(path, encoding="utf-8", errors="surrogateescape") as handle:
        for number, line in enumerate(handle, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                if words[0] == "begin":
                    if block is not None:
                        raise InputError(describe("line", "a second 'begin'", "'end' first"))
                    block = _Block()
                elif block is None:
                    raise InputError(describe("line", words[0], "'begin'"))
                elif words[0] != "end":
                    block.add(words)
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            if words[0] == "end" and block is not None:
                yield block
                block, found = None, True
    if block is not None or not found:
        got = "an unfinished structure" if block is not None else "no structure"
        raise InputError(describe("data file", f"{path} with {got}", "begin … end blocks"))


class _Block:
    """The lines between one ``begin`` and its ``end``."""

    def __init__(self) -> None:
        self.lattice: list[list[float]] = []
        self.symbols: list[str] = []
        self.positions: list[list[float]] = []
        self.charges: list[float] = []
        self.forces: list[list[float]] = []
        self.energy: float | None = None
        self.total_charge: float | None = None

    def add(self, words: list[str]) -> None:
        """Parse the words of a line."""
        keyword, values = words[0], words[1:]
        if keyword == "comment":
            return
        given = {"energy": self.energy, "charge": self.total_charge}.get(keyword)
        if given is not None:
            raise InputError(describe(keyword, f"a second one after {given:g}", "one a structure"))
        if keyword == "lattice":
            self.lattice.append(_floats(keyword, values, 3))
        elif keyword == "atom":
            if len(values) != 9:
                raise InputError(
                    describe("atom", f"{len(values)} columns", "x y z element q e fx fy fz")
                )
            numbers = _floats(keyword, values[:3] + values[4:], 8)
            self.positions.append(numbers[:3])
            self.symbols.append(values[3])
            self.charges.append(numbers[3])
            self.forces.append(numbers[5:])
        elif keyword == "energy":
            self.energy = _floats(keyword, values, 1)[0]
        elif keyword == "charge":
            self.total_charge = _floats(keyword, values, 1)[0]
        else:
            raise InputError(
                describe("keyword", keyword, "lattice, atom, energy, charge, comment or end")
            )

    def structure(self) -> Structure:
        """The structure in the units of the file."""
        if len(self.lattice) not in (0, 3):
            raise InputError(describe("lattice", f"{len(self.lattice)} lines", "three or none"))
        return Structure(
            symbols=tuple(self.symbols),
            positions=np.array(self.positions).reshape(-1, 3),
            cell=np.array(self.lattice) if self.lattice else None,
            pbc=BULK if self.lattice else FREE,
            total_charge=self.total_charge or 0.0,
            energy=self.energy,
            forces=np.array(self.forces).reshape(-1, 3),
            charges=np.array(self.charges),
        )


def _floats(keyword: str, words: list[str], count: int) -> list[float]:
    try:
        numbers = [float(w) for w in words]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise InputError(describe(keyword, " ".join(words) or "nothing", f"{count} numbers"))
    return numbers
