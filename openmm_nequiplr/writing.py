"""Atomic writing of files: after a full disk or a killed process the old file remains."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Suffix of a file that is being written.
PART = ".part"


def replace_file(
    path: str | os.PathLike, data: bytes | memoryview | str, earlier: Path | None = None
) -> None:
    """Replace a file atomically: at any time it has either its old or its new content.

    Parameters
    ----------
    path : path
        A link stays one, and what it points to is written; a device or a pipe is written into.
    data : bytes or str
        Text is written in UTF-8.
    earlier : path, optional
        Name under which the old content is kept once the new content is on disk.

    Raises
    ------
    OSError
        For example on a full disk; the error names the file.
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
    """Append to a file and wait until the text is on disk.

    Raises
    ------
    OSError
        For example on a full disk; the error names the file.
    """
    with _named(Path(path)), open(path, "a", newline="", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def _keep(path: Path, earlier: Path) -> None:
    """Give a file a second name; it never lacks a name."""
    second = earlier.with_name(earlier.name + PART)
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # a file system without links
        shutil.copyfile(path, second)
    os.replace(second, earlier)


def _sync_directory(directory: Path) -> None:
    """Write the names of new files to disk; Windows does this itself."""
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
    """Context manager that adds the file name to errors of the operating system."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
