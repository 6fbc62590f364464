"""Marks of output files at a checkpoint, to compare the files and to truncate them.

A mark is the size of a file and a checksum of its content at the checkpoint. Files only grow, so a
file belongs to the checkpoint if it still begins with this content; the rest is from later steps.
The checksum excludes the frame counts in headers, which change.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, describe
from .reporters import read_record_header, record_header

_CHUNK = 1 << 22
# Offsets in a DCD header as OpenMM writes it.
_DCD_HEADER = 276
_DCD_COUNT, _DCD_FIRST, _DCD_INTERVAL, _DCD_LAST, _DCD_BOX, _DCD_ATOMS = 8, 12, 16, 20, 48, 268


@dataclass(frozen=True)
class FileMark:
    """Size and checksum of a file at a checkpoint.

    Parameters
    ----------
    size : int, bytes
    checksum : int
        CRC-32 of the content, without the frame counts in a header.
    """

    size: int
    checksum: int


def extend_mark(path: Path, mark: FileMark | None = None) -> FileMark:
    """The mark of a file that has grown; its content is first flushed to disk.

    Parameters
    ----------
    path : path
    mark : FileMark, optional
        An earlier mark; the content up to it is not read again.
    """
    with open(path, "r+b") as handle:
        os.fsync(handle.fileno())
        end = handle.seek(0, os.SEEK_END)
        if mark is None or mark.size > end:
            mark = FileMark(*_header(path, handle))
        return FileMark(end, _checksum(handle, mark.size, end, mark.checksum))


def compare(path: Path, mark: FileMark, whole: bool = False) -> str | None:
    """Message on how a file differs from its mark, or ``None``.

    Parameters
    ----------
    path : path
    mark : FileMark
    whole : bool
        Whether content beyond the mark counts as a difference.
    """
    if not path.is_file():
        return f"{path.name} is missing"
    with open(path, "rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        if size < mark.size:
            return f"{path.name} has {size} bytes, and had {mark.size}"
        if whole and size > mark.size:
            return f"{path.name} has {size} bytes instead of {mark.size}"
        start, checksum = _header(path, handle)
        if start > mark.size or _checksum(handle, start, mark.size, checksum) != mark.checksum:
            return f"{path.name} holds something else"
    return None


def cut_to(path: Path, mark: FileMark) -> None:
    """Truncate a file to its mark, and correct the frame count in its header."""
    with open(path, "r+b") as handle:
        handle.truncate(mark.size)
        if path.suffix == ".dcd":
            _count_dcd(handle, mark.size)
        elif path.suffix == ".npy":
            _count_records(handle, mark.size)
        handle.flush()
        os.fsync(handle.fileno())


def _header(path: Path, handle: BinaryIO) -> tuple[int, int]:
    """Length of a variable header, and the checksum of its constant part."""
    handle.seek(0)
    if path.suffix == ".dcd":
        header = bytearray(handle.read(_DCD_HEADER))
        for offset in (_DCD_COUNT, _DCD_LAST):
            header[offset : offset + 4] = bytes(4)
        return len(header), zlib.crc32(header)
    if path.suffix == ".npy":
        try:
            dtype, _ = read_record_header(handle)
        except ValueError:
            return 0, 0
        return handle.tell(), zlib.crc32(str(dtype.descr).encode())
    return 0, 0


def _checksum(handle: BinaryIO, start: int, end: int, checksum: int) -> int:
    handle.seek(start)
    while start < end:
        chunk = handle.read(min(_CHUNK, end - start))
        if not chunk:
            break
        checksum = zlib.crc32(chunk, checksum)
        start += len(chunk)
    return checksum


def _count_dcd(handle: BinaryIO, size: int) -> None:
    """Write the number of frames and the last step into the header of a DCD file."""
    handle.seek(0)
    header = handle.read(_DCD_HEADER)
    if len(header) < _DCD_HEADER or header[4:8] != b"CORD":
        raise InputError(describe("trajectory", handle.name, "a DCD file written by OpenMM"))

    def number(offset: int) -> int:
        return int(struct.unpack_from("<i", header, offset)[0])

    frame = 3 * (8 + 4 * number(_DCD_ATOMS)) + (56 if number(_DCD_BOX) else 0)
    count = (size - _DCD_HEADER) // frame
    last = number(_DCD_FIRST) + (count - 1) * number(_DCD_INTERVAL)
    for offset, value in ((_DCD_COUNT, count), (_DCD_LAST, last)):
        handle.seek(offset)
        handle.write(struct.pack("<i", value))


def _count_records(handle: BinaryIO, size: int) -> None:
    """Write the number of records into the header of a ``.npy`` file."""
    handle.seek(0)
    dtype, _ = read_record_header(handle)
    start = handle.tell()
    handle.seek(0)
    handle.write(record_header(dtype, (size - start) // dtype.itemsize))
