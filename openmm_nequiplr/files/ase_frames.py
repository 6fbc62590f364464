"""Frames of files that ASE reads, with checks of crystals and of elements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, describe, notify

if TYPE_CHECKING:
    from ase import Atoms
    from ase.io.cif import CIFBlock

_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
)
_NAMES = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m")
_OCCUPANCY = "_atom_site_occupancy"
_LAMMPS_SUFFIXES = {".data", ".lmp", ".lammps"}
_LAMMPS_HEAD = re.compile(r"^\s*\d+\s+atoms\b", re.MULTILINE)
# Distance (Å) below which atoms are alternatives of one site, or copies that were not merged.
_COINCIDE = 0.5


def ase_frames(path: str | Path, kind: str | None = None) -> Iterator[Atoms]:
    """All frames of a file; its name may contain any character.

    Parameters
    ----------
    path : path
    kind : str, optional
        ASE's name of the format; by default ASE detects it.

    Raises
    ------
    InputError
        If a crystal is disordered or does not specify its symmetry, or a LAMMPS or VASP file does
        not contain the elements.
    """
    from ase.io import iread

    kind = kind or kind_of(Path(path))
    check_types(Path(path), kind)
    if kind == "cif":
        return _crystals(Path(path))
    return iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True)


def check_cell_entry(atoms: Atoms) -> None:
    """Refuse a cell under a name that ASE does not read, such as ``lattice`` in extended XYZ.

    Raises
    ------
    InputError
        If there is such an entry and no cell.
    """
    for name, value in atoms.info.items():
        if str(name).lower() in ("lattice", "cell") and np.size(value) > 1 and not atoms.cell.any():
            raise InputError(describe(str(name), value, "no entry of this name: it is Lattice"))


def kind_of(path: Path) -> str:
    """ASE's name of the format of a file."""
    from ase.io.formats import filetype

    suffix = path.suffix.lower()
    if suffix == ".cif":
        return "cif"
    if suffix in _LAMMPS_SUFFIXES and _LAMMPS_HEAD.search(text_of(path, 10_000)):
        return "lammps-data"
    return str(filetype(str(path)))


def text_of(path: Path, most: int = -1) -> str:
    """The text of a file, which may be compressed, or that of its first bytes."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as handle:
        return handle.read(most).decode(errors="replace")


def check_types(path: Path, kind: str) -> None:
    """Reject files in which ASE would misidentify the elements.

    LAMMPS atom types are not atomic numbers, and VASP's atom counts need element names.
    """
    if kind not in ("lammps-data", "lammps-dump-text", "vasp"):
        return
    text = text_of(path)
    if kind == "vasp":
        return _check_counts(path, text.splitlines())
    if kind == "lammps-data":
        notify(f"structure: elements of {path} are told by the masses of its types")
        told = any(line.strip().startswith("Masses") for line in text.splitlines())
    else:
        heads = [line.split() for line in text.splitlines() if line.startswith("ITEM: ATOMS")]
        told = all({"element", "mass"} & set(words) for words in heads)
    if not told:
        expected = "elements (dump_modify element, or a section Masses) in a LAMMPS file"
        raise InputError(describe("structure", f"numbers of types in {path}", expected))


def _check_counts(path: Path, lines: list[str]) -> None:
    """Reject a POSCAR whose atom counts do not match its element names or positions."""
    lines = lines + [""] * 9
    names = lines[5].split()
    if not names or names[0].isdigit():
        notify(f"structure: {path} names no elements but, in its first line, {lines[0].strip()!r}")
        return
    counts = lines[6].partition("!")[0].split()
    if len(names) != len(counts) or not all(word.isdigit() for word in counts):
        got = f"{lines[6].strip()!r} below {lines[5].strip()!r} in {path}"
        raise InputError(describe("structure", got, "a number of atoms for every element"))
    head = 9 if lines[7].strip()[:1].lower() == "s" else 8
    total = sum(map(int, counts))
    there = 0
    for line in lines[head:]:
        if not line.strip() or line.strip()[0].isalpha():
            break  # velocities and other blocks follow
        there += 1
    if there != total:
        got = f"{total} atoms declared, {there} positions in {path}"
        raise InputError(describe("structure", got, "a position for every atom"))


def _crystals(path: Path) -> Iterator[Atoms]:
    from ase.io.cif import parse_cif
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as handle:
        blocks = [block for block in parse_cif(handle) if block.has_structure()]
    for block in blocks:
        atoms = _with_symmetry(path, block).get_atoms()
        _check_occupancies(path, atoms)
        _check_sites(path, atoms)
        yield atoms


def _with_symmetry(path: Path, block: CIFBlock) -> CIFBlock:
    """CIF block from which ASE reads the intended symmetry.

    ASE prefers numbers and names of space groups to listed operations. Without operations, it uses
    the first setting of a space group.
    """
    from ase.io.cif import CIFBlock

    tags = dict(block)
    for name in (*block, _OCCUPANCY):
        if name.startswith(("_atom_site_fract_", "_atom_site_cartn_")) or name == _OCCUPANCY:
            tags[name] = _numbers(path, name, tags.get(name))
    tags = {name: value for name, value in tags.items() if value is not None}
    if any(name in block for name in _OPERATIONS):
        for name in block:
            if name.startswith(("_symmetry", "_space_group")) and name not in _OPERATIONS:
                del tags[name]
        tags["_symmetry_int_tables_number"] = 1
    elif block.get_cellpar() is not None:
        _check_setting(path, block)
    return CIFBlock(block.name, tags)


def _numbers(path: Path, name: str, values: Any) -> Any:
    if values is None:
        return None
    if name == _OCCUPANCY:
        values = [1.0 if value in ("?", ".") else value for value in values]
    unknown = [value for value in values if isinstance(value, str)]
    if unknown:
        raise InputError(describe(name, f"{unknown[0]!r} in {path}", "a number for every site"))
    return values


def _check_setting(path: Path, block: CIFBlock) -> None:
    """Refuse a space group with several settings if no symmetry operations are listed."""
    from ase.spacegroup import Spacegroup
    from ase.spacegroup.spacegroup import SpacegroupNotFoundError

    group = block.get_spacegroup(True)
    given = next((str(block[name]) for name in _NAMES if name in block), group.symbol)
    cell = block.get_cellpar() or []
    told = "_symmetry_space_group_setting" in block
    told |= group.symbol.startswith("R") and abs(float(cell[5]) - 120.0) < 0.1
    try:
        other = None if told else Spacegroup(group.no, 2).symbol
    except SpacegroupNotFoundError:
        other = None
    if _plain(given) != _plain(group.symbol) or _plain(group.symbol) == _plain(other or ""):
        got = f"{given!r} (number {group.no}) and no operations in {path}"
        expected = (
            "the symmetry operations of a space group that has several settings (a loop of "
            "_space_group_symop_operation_xyz)"
        )
        raise InputError(describe("symmetry", got, expected))


def _plain(symbol: str) -> str:
    """Short Hermann-Mauguin symbol without blanks."""
    words = symbol.replace("_", "").lower().split()
    return "".join(word for word in words if word != "1" or len(words) == 2)


def _check_occupancies(path: Path, atoms: Atoms) -> None:
    for sites in (atoms.info.get("occupancy") or {}).values():
        if len(sites) > 1 or any(abs(float(value) - 1.0) > 1e-3 for value in sites.values()):
            shown = ", ".join(f"{symbol} {float(value):g}" for symbol, value in sites.items())
            got = f"the occupancies {shown} in {path}"
            expected = "full occupancy of every site (choose one ordered arrangement)"
            raise InputError(describe("structure", got, expected))


def _check_sites(path: Path, atoms: Atoms) -> None:
    from ase.neighborlist import neighbor_list

    first, second, apart = neighbor_list("ijd", atoms, _COINCIDE)
    if len(apart):
        k = int(np.argmin(apart))
        got = f"atoms {first[k]} and {second[k]} at {apart[k]:.3g} Å in {path}"
        expected = (
            f"sites at least {_COINCIDE:g} Å apart (thirds with five decimals, one of several "
            "alternatives)"
        )
        raise InputError(describe("structure", got, expected))
