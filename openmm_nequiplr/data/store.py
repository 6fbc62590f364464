"""Storage of structures on disk, in shards of memory-mapped arrays that are read on access."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ..boundaries import as_pbc
from ..errors import DirectoryInUseError
from ..locking import LOCK_FILE, directory_lock
from ..writing import replace_file
from .keys import DataKeys
from .quantities import NAMED
from .sequences import LazySequence, selected
from .structure import Structure

#: Converts an iterable of structures to a sequence: ``list``, or one on disk.
Keep = Callable[[Iterable[Structure]], Sequence[Structure]]

#: Receives a line of text.
Say = Callable[[str], None]

INDEX, _SHARDS, _VERSION = "index.json", "structures-{}.safetensors", 4
#: Size in bytes up to which structures stay in memory, and approximate size of a shard.
IN_MEMORY, SHARD = 64e6, 32e6
_BYTES_OF_ATOM = 64.0
# Bytes of memory that reading a structure maps beyond its own data.
_AROUND = 2e6
#: NumPy types by their names in safetensors.
_KINDS = {"F64": np.float64, "I64": np.int64, "I16": np.int16, "U8": np.uint8}
#: Name, whether there is one row per atom (or per structure), shape of a row; NaN is unknown.
_LAYOUT: tuple[tuple[str, bool, tuple[int, ...]], ...] = (
    ("positions", True, (3,)),
    ("cell", False, (3, 3)),
    ("pbc", False, (3,)),
    ("synthetic", False, ()),
    *((n, each.per_atom or n == "group_charges", each.shape) for n, each in NAMED.items()),
)


class Stored(LazySequence):
    """Sequence of the structures stored in a directory.

    Parameters
    ----------
    directory : path
    shards : sequence of dict
        Entries of the index, with ``file`` and ``sha256``.
    unknown : sequence of str
        Labels to omit.
    """

    def __init__(
        self, directory: Path, shards: Sequence[dict[str, str]], unknown: Sequence[str] = ()
    ) -> None:
        self.directory, self.shards, self.unknown = directory, list(shards), tuple(unknown)
        self._open: dict[int, dict[str, np.ndarray]] = {}
        self._touched = 0.0
        self._atoms: list[np.ndarray] = []
        self._symbols: list[list[str]] = []
        for number in range(len(self.shards)):
            shard = self._shard(number)
            self._atoms.append(np.array(shard["atoms"]))
            self._symbols.append(shard["symbols"].tobytes().decode().split())
        self._starts = np.cumsum([0, *(len(atoms) - 1 for atoms in self._atoms)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, place: int) -> Structure:
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        row = place - int(self._starts[number])
        begin, end = map(int, self._atoms[number][row : row + 2])
        shard, names = self._shard(number), self._symbols[number]
        elements = shard["elements"][begin:end].tolist()
        values: dict[str, Any] = {"symbols": tuple([names[k] for k in elements])}
        for name, per_atom, tail in _LAYOUT:
            values[name] = None
            if name in shard and name not in self.unknown:
                value = shard[name][begin:end] if per_atom else shard[name][row]
                if value.item(0) == value.item(0):  # either all are NaN or none
                    values[name] = np.array(value) if per_atom or tail else value.item()
        values |= {"pbc": as_pbc(values["pbc"]), "synthetic": bool(values["synthetic"])}
        if values["charge_groups"] is not None:
            _, first = np.unique(values["charge_groups"], return_index=True)
            values["charge_groups"] = values["charge_groups"].astype(np.int64)
            values["group_charges"] = values["group_charges"][first]
        values["origin"] = shard["origin"][row].tobytes().rstrip(b"\0").decode()
        self._touched += _AROUND + _BYTES_OF_ATOM * (end - begin)
        if self._touched > SHARD:  # pages that were read count towards the memory of the process
            self._open, self._touched = {}, 0.0
        structure = Structure.__new__(Structure)  # already checked when written
        structure.__dict__.update(values)
        return structure

    def _shard(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._open:
            self._open[number] = _mapped(self.directory / self.shards[number]["file"])
        return self._open[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return Stored, (self.directory, self.shards, self.unknown)


class _MadeMeanwhile(Exception):
    """Raised when another process created the store while this one read the file."""


class Store:
    """Directory that stores the structures of a large data file.

    If several processes need the structures, one writes them and the others wait.

    Parameters
    ----------
    directory : path
        Directory of one file read with one set of options, created if needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def structures(
        self, read: Callable[[Keep, Say], Sequence[Structure]], say: Say
    ) -> Sequence[Structure]:
        """Return the stored structures if they are up to date; otherwise read and store them.

        A small number of structures is returned as a list and not stored.

        Parameters
        ----------
        read : callable
            Reads the structures, given a :data:`Keep` and a :data:`Say`.
        say : callable
            Called with each note, including the notes recorded when the structures were read.
        """
        earlier = self._earlier(say)
        if earlier is not None:
            return earlier
        remarks: list[str] = []

        def tell(line: str) -> None:
            remarks.append(line)
            say(line)

        try:
            with ExitStack() as stack:
                found = read(lambda structures: self._keep(structures, stack), tell)
                if isinstance(found, Stored):
                    index = {"remarks": remarks, "shards": found.shards, "unknown": found.unknown}
                    replace_file(self.directory / INDEX, json.dumps(index, indent=1) + "\n")
        except _MadeMeanwhile:
            return self.structures(read, say)
        return found

    def _earlier(self, say: Say) -> Stored | None:
        """Stored structures; None if there are none, or the store is damaged."""
        try:
            index = json.loads((self.directory / INDEX).read_text(encoding="utf-8"))
            for shard in index["shards"]:
                if file_digest(self.directory / shard["file"]) != shard["sha256"]:
                    raise ValueError(f"{shard['file']} has changed")
            found = Stored(self.directory, index["shards"], index["unknown"])
            remarks = [str(line) for line in index["remarks"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"{self.directory}: damaged ({error}), rebuilt")
            return None
        for line in remarks:
            say(line)
        return found

    def _keep(self, structures: Iterable[Structure], stack: ExitStack) -> Sequence[Structure]:
        """Keep a few structures in a list; write many to the directory, shard by shard.

        The directory is locked before the first shard is written, until the stack is closed.
        """
        shards: list[dict[str, str]] = []
        waiting: list[Structure] = []
        size, most = 0.0, IN_MEMORY
        for structure in structures:
            waiting.append(structure)
            size += _BYTES_OF_ATOM * structure.num_atoms
            if size > most:
                if not shards:
                    stack.enter_context(directory_lock(self.directory, wait=True))
                    if self._earlier(lambda line: None) is not None:
                        raise _MadeMeanwhile
                    (self.directory / INDEX).unlink(missing_ok=True)
                shards.append(self._write(waiting, len(shards)))
                waiting, size, most = [], 0.0, SHARD
        if not shards:
            return waiting
        if waiting:
            shards.append(self._write(waiting, len(shards)))
        return Stored(self.directory, shards)

    def _write(self, structures: Sequence[Structure], number: int) -> dict[str, str]:
        name = _SHARDS.format(f"{number:04d}")
        data = save(_arrays(structures))
        replace_file(self.directory / name, data)
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """Memory-mapped arrays of a safetensors file."""
    content = np.memmap(path, dtype=np.uint8, mode="r")
    end = 8 + int.from_bytes(content[:8].tobytes(), "little")
    arrays = {}
    for name, entry in json.loads(content[8:end].tobytes()).items():
        first, last = entry["data_offsets"]
        values = np.asarray(content[end + first : end + last]).view(_KINDS[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def _values(structure: Structure, name: str) -> Any:
    """Value to store; the charges of groups are repeated for each atom."""
    value = getattr(structure, name)
    if name == "group_charges" and value is not None:
        return value[structure.charge_groups]
    return value


def _arrays(structures: Sequence[Structure]) -> dict[str, np.ndarray]:
    """Arrays of a shard."""
    names = sorted({symbol for each in structures for symbol in each.symbols})
    code = {symbol: k for k, symbol in enumerate(names)}
    counts = [each.num_atoms for each in structures]
    elements = np.array([code[s] for each in structures for s in each.symbols], dtype=np.int16)
    arrays = {"atoms": np.cumsum([0, *counts]), "elements": elements}
    arrays["symbols"] = np.frombuffer(" ".join(names).encode(), dtype=np.uint8)
    origins = np.array([each.origin.encode() for each in structures])
    width = max(origins.dtype.itemsize, 1)
    arrays["origin"] = origins.astype(f"S{width}").view(np.uint8).reshape(-1, width)
    for name, per_atom, tail in _LAYOUT:
        values = [_values(each, name) for each in structures]
        if any(value is not None for value in values):
            rows = [
                np.full((count if per_atom else 1, *tail), np.nan)
                if value is None
                else np.asarray(value, dtype=np.float64).reshape(-1, *tail)
                for value, count in zip(values, counts, strict=True)
            ]
            # safetensors writes arrays in memory order, and arrays from ASE may be transposed
            arrays[name] = np.ascontiguousarray(np.concatenate(rows))
    return arrays


def store_of(
    path: str | Path, directory: Path, keys: DataKeys | None = None, *options: object
) -> Store:
    """Store of a data file that is read with given keys.

    Parameters
    ----------
    path : path
        The data file. Each combination of content, keys and options has its own store.
    directory : path
        Parent directory of all stores.
    keys : DataKeys, optional
    options
        Other options of reading.
    """
    path = Path(path).resolve()
    key = [_VERSION, str(path), file_digest(path), *map(repr, (keys, *options))]
    return Store(directory / f"{path.stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}")


def remove_others(directory: Path, used: Collection[Path]) -> None:
    """Remove stores from a directory, except those in use or being written by other processes."""
    for other in directory.iterdir() if directory.is_dir() else ():
        shards = [] if other in used else list(other.glob(_SHARDS.format("*") + "*"))
        if shards:
            with suppress(DirectoryInUseError, OSError):
                with directory_lock(other):
                    for file in (other / INDEX, *shards):
                        file.unlink(missing_ok=True)
                (other / LOCK_FILE).unlink()
                other.rmdir()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def without(structures: Sequence[Structure], labels: Sequence[str]) -> Sequence[Structure]:
    """Structures without some of the labels."""
    if isinstance(structures, Stored):
        return Stored(structures.directory, structures.shards, labels)
    return selected(structures, lambda structure: structure.without(*labels))
