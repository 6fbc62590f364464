"""Atomic writing: a full disk or a killed process leaves the old file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Ending of a file that is being written.
PART = ".part"


def replace_file(
    path: str | os.PathLike, data: bytes | memoryview | str, earlier: Path | None = None
) -> None:
    """Write a file in one step: it has its old or its new content, whatever happens.

    Parameters
    ----------
    path : path
        A link stays one, and what it points to is written; a device or a pipe is written into.
    data : bytes or str
        Text is written in UTF-8.
    earlier : path, optional
        Name under which the old content stays, once the new one is on disk; at no time is there
        neither.

    Raises
    ------
    OSError
        Naming the file, for example on a full disk.
    """
    target = Path(path)
    content = data.encode() if isinstance(data, str) else data
    if target.exists() and not target.is_file() and not target.is_dir():  # a device or a pipe
        with _named(target), open(target, "wb") as handle:
            handle.write(content)
        return
    if target.is_symlink():
        target = target.resolve()
    part = target.with_name(target.name + PART)
    with _named(target):
        try:
            with open(part, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            if earlier is not None and target.is_file():
                _keep(target, earlier)
            os.replace(part, target)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)


def append_text(path: str | os.PathLike, text: str) -> None:
    """Write at the end of a file, and wait until it is on disk.

    Raises
    ------
    OSError
        Naming the file, for example on a full disk.
    """
    with _named(Path(path)), open(path, "a", newline="", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def _keep(path: Path, earlier: Path) -> None:
    """Give a file a second name, without a moment in which it has none."""
    second = earlier.with_name(earlier.name + PART)
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # a file system without links
        shutil.copyfile(path, second)
    os.replace(second, earlier)


def _sync_directory(directory: Path) -> None:
    """Bring the names of new files to the disk; Windows does that by itself."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems do not support it
        pass
    finally:
        os.close(handle)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the operating system name the file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
