"""mmCIF files of molecules, parsed by OpenMM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, describe, notify
from .content import (
    FileContent,
    cell_of_parameters,
    choose_frame,
    say_space_group,
    sum_of_formal_charges,
)
from .elements import element_from_name, is_site, known_element, say_guesses
from .locations import Location, say_locations, single_locations

_Row = dict[str, str]
_UNKNOWN = ("?", ".")
#: Columns of the number of a model (frame) and of the position.
MODEL, PLACE = "pdbx_PDB_model_num", ("Cartn_x", "Cartn_y", "Cartn_z")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def read_mmcif(path: Path, frame: int | None = None) -> FileContent:
    """Read one frame (model) of an mmCIF file without losing atoms.

    Parameters
    ----------
    path : path
    frame : int, optional
        By default the last one.

    Returns
    -------
    FileContent
        ``source`` contains the rows of the atoms and the category of bonds.

    Raises
    ------
    InputError
        If the file cannot be parsed, an element cannot be determined, or there is no such frame.
    """
    models, block = _models(path)
    rows = models[choose_frame(path, frame, len(models))]
    places, kept = _single(path, rows)
    say_locations(path, len(rows) - len(kept))
    rows, places = [rows[k] for k in kept], [places[k] for k in kept]
    symbols = _elements(path, rows, places)
    rows = [row | {"type_symbol": symbol or "."} for row, symbol in zip(rows, symbols, strict=True)]
    symmetry = block.getObj("symmetry")
    cell = _cell(path, block.getObj("cell"))
    if cell is not None and symmetry is not None:
        say_space_group(path, _value(symmetry, "space_group_name_H-M") or "")
    formal = (row.get("pdbx_formal_charge", "?") for row in rows)
    return FileContent(
        tuple(symbols),
        tuple(place.name for place in places),
        tuple((place.residue_name, str(place.residue)) for place in places),
        np.array([place.position for place in places]),
        cell,
        sum_of_formal_charges(path, (f"+{x}" if x.isdigit() else x.strip("?.") for x in formal)),
        len(models),
        (rows, block.getObj("struct_conn")),
    )


def mmcif_frames(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Positions, shape (N, 3), Å, and cell (Å) of every frame, without virtual sites."""
    models, block = _models(path)
    cell = _cell(path, block.getObj("cell"))
    for rows in models:
        places, kept = _single(path, rows)
        atoms = [k for k in kept if not _is_site(rows[k], places[k])]
        yield np.array([places[k].position for k in atoms]).reshape(-1, 3), cell


def _models(path: Path) -> tuple[list[list[_Row]], Any]:
    """Rows of the atoms of each model, and the data block that contains them."""
    from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

    blocks: list[Any] = []
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as handle:
            PdbxReader(handle).read(blocks)
        sites = blocks[0].getObj("atom_site")
        names = sites.getAttributeList()
        table = [dict(zip(names, row, strict=True)) for row in sites.getRowList()]
    except OSError:
        raise
    except Exception as error:  # the parser raises errors of any type
        expected = "an mmCIF file with a table atom_site"
        raise InputError(describe("structure", f"{path} ({error})", expected)) from error
    if len(blocks) > 1:
        notify(f"structure: of the {len(blocks)} data blocks in {path}, the first one is taken")
    models: dict[str, list[_Row]] = {}
    for row in table:
        models.setdefault(row.get(MODEL, "1"), []).append(row)
    return list(models.values()), blocks[0]


def _position(path: Path, row: _Row) -> list[float]:
    try:
        place = [float(row[name].partition("(")[0]) for name in PLACE]
    except (KeyError, ValueError):
        place = [float("nan")]
    if not np.isfinite(place).all():
        got = f"{[row.get(name) for name in PLACE]} of atom {row.get('id')} in {path}"
        raise InputError(describe("position", got, f"numbers under {', '.join(PLACE)}"))
    return place


def _single(path: Path, rows: list[_Row]) -> tuple[list[Location], list[int]]:
    """Locations of all rows, and the indices of those that are kept, one for each atom."""

    def first(row: _Row, *names: str) -> str:
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
    return places, [index for index, keep in enumerate(single_locations(places)) if keep]


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


def _is_site(row: _Row, place: Location) -> bool:
    known = known_element(row.get("type_symbol", ""))
    return known is None and is_site(place.name, place.residue_name)


def _elements(path: Path, rows: list[_Row], places: list[Location]) -> list[str | None]:
    """Elements of atoms, deduced from the name where the file has none; ``None`` for sites."""
    symbols: list[str | None] = []
    guesses = []
    for row, place in zip(rows, places, strict=True):
        symbol = known_element(row.get("type_symbol", ""))
        if symbol is None and not _is_site(row, place):
            symbol = element_from_name(place.name, place.residue_name)
            if symbol is None:
                got = f"atom {place.name!r} in {path}"
                raise InputError(describe("element", got, "a symbol under _atom_site.type_symbol"))
            guesses.append((place.name, symbol))
        symbols.append(symbol)
    say_guesses(path, guesses)
    return symbols
