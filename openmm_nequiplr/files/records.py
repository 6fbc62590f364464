"""Own readers of files of atoms with names: PDB, GRO and mmCIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError, describe
from .content import FileContent, is_mmcif
from .gro import gro_frames, read_gro
from .mmcif import mmcif_frames, read_mmcif
from .pdb import pdb_frames, read_pdb


class RecordReaders(NamedTuple):
    """Reader of ``one`` frame of a file, and of the positions and cells of ``all`` frames, in Å."""

    one: Callable[[Path, int | None], FileContent]
    all: Callable[[Path], Iterable[tuple[np.ndarray, np.ndarray | None]]]


_PDB, _MMCIF = RecordReaders(read_pdb, pdb_frames), RecordReaders(read_mmcif, mmcif_frames)
_READERS = {
    ".pdb": _PDB,
    ".ent": _PDB,
    ".gro": RecordReaders(read_gro, gro_frames),
    ".pdbx": _MMCIF,
    ".mmcif": _MMCIF,
}


def record_readers(path: Path) -> RecordReaders | None:
    """Readers of a file; ``None`` for files of other formats.

    Raises
    ------
    InputError
        If the file is compressed.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz" and Path(path.stem).suffix.lower() in _READERS:
        raise InputError(describe("file", str(path), "PDB, GRO and mmCIF files not compressed"))
    return _MMCIF if suffix == ".cif" and is_mmcif(path) else _READERS.get(suffix)
