"""mmCIF files (atoms of molecules), read by OpenMM, and checks of CIF files (crystals)."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

from ..errors import InputError, describe, notify
from ..files.content import FileContent, cell_of_parameters, choose_frame, say_space_group
from ..files.elements import element_from_name, is_site, say_guesses

_UNKNOWN = ("?", ".")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def read_mmcif(path: Path, frame: int | None = None) -> FileContent:
    """Read one frame of an mmCIF file, every atom of it.

    Parameters
    ----------
    path : path
    frame : int, optional
        By default the last one.

    Raises
    ------
    InputError
        If atoms would be lost, an element cannot be told, or there is no such frame.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    blocks: list[Any] = []
    PdbxReader(io.StringIO(text)).read(blocks)
    text = re.sub(r"(?m)^\s*_cell\.\S+.*\n", "", text)  # may be unknown, which OpenMM refuses
    found = app.PDBxFile(io.StringIO(text))
    index = choose_frame(path, frame, found.getNumFrames())
    positions = found.getPositions(asNumpy=True, frame=index).value_in_unit(unit.angstrom)
    charge = _check_rows(path, blocks[0].getObj("atom_site"), found.topology.getNumAtoms())
    _fill_elements(path, found.topology)
    cell = _cell(path, blocks[0].getObj("cell"))
    symmetry = blocks[0].getObj("symmetry")
    if cell is not None and symmetry is not None:
        say_space_group(path, _value(symmetry, "space_group_name_H-M") or "")
    atoms = list(found.topology.atoms())
    return FileContent(
        tuple(None if atom.element is None else atom.element.symbol for atom in atoms),
        tuple(atom.name for atom in atoms),
        tuple((atom.residue.name, str(atom.residue.id)) for atom in atoms),
        np.array(positions),
        cell,
        charge,
        found.getNumFrames(),
        found.topology,
    )


def _value(category: Any, name: str) -> str | None:
    index = category.getAttributeIndex(name)
    return None if index < 0 or category.getRowCount() == 0 else str(category.getRow(0)[index])


def _cell(path: Path, category: Any) -> np.ndarray | None:
    if category is None:
        return None
    words = [_value(category, name) for name in _CELL]
    if any(word is None or word in _UNKNOWN for word in words):
        return None
    try:
        return cell_of_parameters(path, [float(str(word)) for word in words])
    except ValueError:
        raise InputError(describe("cell", f"{words} in {path}", "six numbers")) from None


def _check_rows(path: Path, sites: Any, count: int) -> float | None:
    """Compare rows with atoms; the sum of formal charges, ``None`` without any."""
    rows = sites.getRowList()
    model, place = sites.getAttributeIndex("pdbx_PDB_model_num"), "label_alt_id"
    rows = [row for row in rows if model < 0 or row[model] == rows[0][model]]
    mark, formal = sites.getAttributeIndex(place), sites.getAttributeIndex("pdbx_formal_charge")
    alternate = sum(mark >= 0 and row[mark] not in _UNKNOWN for row in rows)
    lost = len(rows) - count
    if lost > alternate:
        got = f"{count} of the {len(rows)} in {path}; their names are repeated in a residue"
        raise InputError(describe("structure", got, "all atoms"))
    if lost:
        notify(
            f"structure: {path} has alternate locations: the first ones are taken, {lost} others "
            "left out"
        )
    words = [row[formal] for row in rows if formal >= 0 and row[formal] not in _UNKNOWN]
    charges = [float(word) for word in words]
    return sum(charges) if any(charges) else None


def _fill_elements(path: Path, topology: app.Topology) -> None:
    guesses = []
    for atom in topology.atoms():
        if atom.element is not None or is_site(atom.name, atom.residue.name):
            continue
        symbol = element_from_name(atom.name, atom.residue.name)
        if symbol is None:
            got = f"atom {atom.name!r} in {path}"
            raise InputError(describe("element", got, "a symbol under _atom_site.type_symbol"))
        atom.element = app.Element.getBySymbol(symbol)
        guesses.append((atom.name, symbol))
    say_guesses(path, guesses)


def check_crystal(path: Path, atoms: Any) -> None:
    """See that a crystal that ASE read is one structure and not an average of several.

    Raises
    ------
    InputError
        If sites are occupied in part, or by several elements.
    """
    for sites in (atoms.info.get("occupancy") or {}).values():
        if len(sites) > 1 or any(abs(float(value) - 1.0) > 1e-3 for value in sites.values()):
            shown = ", ".join(f"{symbol} {float(value):g}" for symbol, value in sites.items())
            got = f"the occupancies {shown} in {path}"
            expected = "full occupancy of every site (choose one ordered arrangement)"
            raise InputError(describe("structure", got, expected))
