"""Structures on disk: read once, kept in shards of memory-mapped arrays, made when asked for."""

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
from .sequences import LazySequence, selected
from .structure import Structure

#: Makes a sequence of structures that come one after another: ``list``, or one on disk.
Keep = Callable[[Iterable[Structure]], Sequence[Structure]]

#: Takes a line.
Say = Callable[[str], None]

INDEX, _SHARDS, _VERSION = "index.json", "structures-{}.safetensors", 4
#: Structures of fewer bytes stay in memory; more of them fill shards of about so many.
IN_MEMORY, SHARD = 64e6, 32e6
_BYTES_OF_ATOM = 64.0
# What comes into memory with a structure: the system maps much around what is read of each array.
_AROUND = 2e6
#: Types of numbers by the names that safetensors has for them.
_KINDS = {"F64": np.float64, "I64": np.int64, "I16": np.int16, "U8": np.uint8}
#: Name, whether it has one row per atom (otherwise per structure), shape of a row; NaN is unknown.
_LAYOUT: tuple[tuple[str, bool, tuple[int, ...]], ...] = (
    ("positions", True, (3,)),
    ("forces", True, (3,)),
    ("charges", True, ()),
    ("cell", False, (3, 3)),
    ("dipole", False, (3,)),
    ("stress", False, (3, 3)),
    ("born_charges", True, (3, 3)),
    ("polarizability", False, (3, 3)),
    ("electric_field", False, (3,)),
    ("outside_potential", True, ()),
    ("outside_field", True, (3,)),
    ("energy", False, ()),
    ("total_charge", False, ()),
    ("weight", False, ()),
    ("pbc", False, (3,)),
    ("synthetic", False, ()),
    ("charge_groups", True, ()),
    ("group_charges", True, ()),
)


class Stored(LazySequence):
    """Structures in the shards of a directory.

    Parameters
    ----------
    directory : path
    shards : sequence of dict
        Entries of the index: ``file`` and ``sha256``.
    unknown : sequence of str
        Labels that are left out.
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
                if value.item(0) == value.item(0):  # all are NaN where one is
                    values[name] = np.array(value) if per_atom or tail else value.item()
        values |= {"pbc": as_pbc(values["pbc"]), "synthetic": bool(values["synthetic"])}
        if values["charge_groups"] is not None:
            _, first = np.unique(values["charge_groups"], return_index=True)
            values["charge_groups"] = values["charge_groups"].astype(np.int64)
            values["group_charges"] = values["group_charges"][first]
        values["origin"] = shard["origin"][row].tobytes().rstrip(b"\0").decode()
        self._touched += _AROUND + _BYTES_OF_ATOM * (end - begin)
        if self._touched > SHARD:  # pages that were read count as memory of the process
            self._open, self._touched = {}, 0.0
        structure = Structure.__new__(Structure)  # it was checked before it was written
        structure.__dict__.update(values)
        return structure

    def _shard(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._open:
            self._open[number] = _mapped(self.directory / self.shards[number]["file"])
        return self._open[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return Stored, (self.directory, self.shards, self.unknown)


class _MadeMeanwhile(Exception):
    """Another process made the store while this one read the file."""


class Store:
    """A directory that keeps the structures of a data file, if they are too many for the memory.

    Of several processes one writes, and the others wait for it.

    Parameters
    ----------
    directory : path
        For nothing else than this file, read in this way. Made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def structures(
        self, read: Callable[[Keep, Say], Sequence[Structure]], say: Say
    ) -> Sequence[Structure]:
        """The structures as they were kept, or as they are read now; a list of few.

        Parameters
        ----------
        read : callable
            Reads them, with what it is to keep them by and to speak to.
        say : callable
            Takes a line, also what was said when they were read.
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
        """What was kept; None if there is nothing, or it is damaged."""
        try:
            index = json.loads((self.directory / INDEX).read_text(encoding="utf-8"))
            for shard in index["shards"]:
                if file_digest(self.directory / shard["file"]) != shard["sha256"]:
                    raise ValueError(f"{shard['file']} is not as it was written")
            found = Stored(self.directory, index["shards"], index["unknown"])
            remarks = [str(line) for line in index["remarks"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"{self.directory}: damaged ({error}), made anew")
            return None
        for line in remarks:
            say(line)
        return found

    def _keep(self, structures: Iterable[Structure], stack: ExitStack) -> Sequence[Structure]:
        """A list of few structures; many go to the directory, shard by shard as they come.

        The directory is locked before the first one until the stack ends.
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
    """The arrays of a safetensors file, of which no more is read than is asked for."""
    content = np.memmap(path, dtype=np.uint8, mode="r")
    end = 8 + int.from_bytes(content[:8].tobytes(), "little")
    arrays = {}
    for name, entry in json.loads(content[8:end].tobytes()).items():
        first, last = entry["data_offsets"]
        values = np.asarray(content[end + first : end + last]).view(_KINDS[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def _values(structure: Structure, name: str) -> Any:
    """What is stored of a structure; charges of groups for each atom."""
    value = getattr(structure, name)
    if name == "group_charges" and value is not None:
        return value[structure.charge_groups]
    return value


def _arrays(structures: Sequence[Structure]) -> dict[str, np.ndarray]:
    """The arrays of a shard."""
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
            # safetensors writes the memory as it lies, and files of ASE give transposed arrays
            arrays[name] = np.ascontiguousarray(np.concatenate(rows))
    return arrays


def store_of(
    path: str | Path, directory: Path, keys: DataKeys | None = None, *options: object
) -> Store:
    """The store of a data file, as it is read with these keys.

    Parameters
    ----------
    path : path
        Of the file; with other content, keys or options it has another store.
    directory : path
        For all stores.
    keys : DataKeys, optional
    options
        How the file is read otherwise.
    """
    path = Path(path).resolve()
    key = [_VERSION, str(path), file_digest(path), *map(repr, (keys, *options))]
    return Store(directory / f"{path.stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}")


def remove_others(directory: Path, used: Collection[Path]) -> None:
    """Remove the stores in a directory but those in use and those that another process writes."""
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
    """The same structures without some of the labels."""
    if isinstance(structures, Stored):
        return Stored(structures.directory, structures.shards, labels)
    return selected(structures, lambda structure: structure.without(*labels))
