"""mmCIF files of molecules, read by OpenMM."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app
from openmm.app.internal.pdbx.reader.PdbxContainers import DataCategory, DataContainer
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader
from openmm.app.internal.pdbx.writer.PdbxWriter import PdbxWriter

from ..errors import InputError, describe, notify
from ..files.content import (
    FileContent,
    cell_of_parameters,
    choose_frame,
    say_space_group,
    sum_of_formal_charges,
)
from ..files.elements import element_from_name, is_site, say_guesses
from ..files.locations import Location, say_locations, single_locations

_UNKNOWN = ("?", ".")
_MODEL = "pdbx_PDB_model_num"
_PLACE = ("Cartn_x", "Cartn_y", "Cartn_z")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def read_mmcif(path: Path, frame: int | None = None) -> FileContent:
    """Read one frame (model) of an mmCIF file without losing atoms.

    Parameters
    ----------
    path : path
    frame : int, optional
        By default the last one.

    Raises
    ------
    InputError
        If atoms would be lost, an element cannot be determined, or there is no such frame.
    """
    blocks: list[Any] = []
    with open(path, encoding="utf-8-sig", errors="replace") as handle:
        PdbxReader(handle).read(blocks)
    if len(blocks) > 1:
        notify(f"structure: of the {len(blocks)} data blocks in {path}, the first one is taken")
    sites = blocks[0].getObj("atom_site")
    table = [dict(zip(sites.getAttributeList(), row, strict=True)) for row in sites.getRowList()]
    models = list(dict.fromkeys(row.get(_MODEL, "1") for row in table))
    chosen = models[choose_frame(path, frame, len(models))]
    rows, positions = _single(path, [row for row in table if row.get(_MODEL, "1") == chosen])
    topology = _openmm_topology(rows, blocks[0].getObj("struct_conn"))
    if topology.getNumAtoms() != len(rows):
        got = f"{topology.getNumAtoms()} of the {len(rows)} in {path}"
        raise InputError(describe("structure", got, "all atoms"))
    _fill_elements(path, topology)
    cell = _cell(path, blocks[0].getObj("cell"))
    symmetry = blocks[0].getObj("symmetry")
    if cell is not None and symmetry is not None:
        say_space_group(path, _value(symmetry, "space_group_name_H-M") or "")
    formal = (row.get("pdbx_formal_charge", "?") for row in rows)
    atoms = list(topology.atoms())
    return FileContent(
        tuple(None if atom.element is None else atom.element.symbol for atom in atoms),
        tuple(atom.name for atom in atoms),
        tuple((atom.residue.name, str(atom.residue.id)) for atom in atoms),
        positions,
        cell,
        sum_of_formal_charges(path, (f"+{x}" if x.isdigit() else x.strip("?.") for x in formal)),
        len(models),
        topology,
    )


def _position(path: Path, row: dict[str, str]) -> list[float]:
    try:
        place = [float(row[name].partition("(")[0]) for name in _PLACE]
    except (KeyError, ValueError):
        place = [float("nan")]
    if not np.isfinite(place).all():
        got = f"{[row.get(name) for name in _PLACE]} of atom {row.get('id')} in {path}"
        raise InputError(describe("position", got, f"numbers under {', '.join(_PLACE)}"))
    return place


def _single(path: Path, rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], np.ndarray]:
    """Rows of atoms with a single location of each atom, and their positions, (N, 3), Å."""

    def first(row: dict[str, str], *names: str) -> str:
        return next((row[name] for name in names if row.get(name, "?") not in _UNKNOWN), "")

    def number(text: str) -> float:
        try:
            return float(text.partition("(")[0])
        except ValueError:
            return 1.0

    places = [
        Location(
            (
                first(row, "auth_asym_id", "label_asym_id"),
                first(row, "auth_seq_id", "label_seq_id"),
                first(row, "pdbx_PDB_ins_code"),
            ),
            first(row, "auth_comp_id", "label_comp_id"),
            first(row, "auth_atom_id", "label_atom_id"),
            first(row, "label_alt_id"),
            number(row.get("occupancy", "1")),
            _position(path, row),
        )
        for row in rows
    ]
    kept = [index for index, keep in enumerate(single_locations(places)) if keep]
    say_locations(path, len(rows) - len(kept))
    return [rows[k] for k in kept], np.array([places[k].position for k in kept])


def _openmm_topology(rows: list[dict[str, str]], bonds: Any) -> app.Topology:
    """OpenMM topology of rows, as for a file without alternate locations, models and cell."""
    fixed = {_MODEL: "1", "label_alt_id": ".", **dict.fromkeys(_PLACE, "0")}
    plain = [{"label_seq_id": "."} | row | fixed for row in rows]
    names = list(plain[0])
    container = DataContainer("frame")
    container.append(DataCategory("atom_site", names, [[row[n] for n in names] for row in plain]))
    if bonds is not None:
        container.append(bonds)
    text = io.StringIO()
    PdbxWriter(text).write([container])
    text.seek(0)
    return app.PDBxFile(text).topology


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
        return cell_of_parameters(path, [float(str(word).partition("(")[0]) for word in words])
    except ValueError:
        raise InputError(describe("cell", f"{words} in {path}", "six numbers")) from None


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
