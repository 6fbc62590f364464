"""Lock of an output directory, which prevents two processes from writing the same files."""

from __future__ import annotations

import errno
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DirectoryInUseError

#: Hidden file in the directory, which remains when the lock is released.
LOCK_FILE = ".lock"
# Beyond the content of the file.
_LOCKED_BYTE = 4096
# Interval between the attempts of a waiting process, s.
_PAUSE = 0.1
#: Error numbers of file systems without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def directory_lock(path: str | os.PathLike, wait: bool = False) -> Iterator[Path]:
    """Context manager that locks an output directory.

    The operating system releases the lock when the process ends in any way. If a file system does
    not support locks, a warning is issued and the directory is not locked.

    Parameters
    ----------
    path : path
        Created if it does not exist.
    wait : bool
        Wait for another process that holds it.

    Yields
    ------
    path

    Raises
    ------
    DirectoryInUseError
        If another process, or another context of this process, has locked the directory.
    OSError
        If the directory cannot be created or written to.
    """
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(directory / LOCK_FILE, flags, 0o666)
    try:
        try:
            _lock(descriptor, wait)
        except BlockingIOError:
            raise DirectoryInUseError(
                f"output: expected a directory that no other process writes, got {directory}, "
                f"which is locked by {_holder(descriptor)}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            message = f"{directory} cannot be locked ({error.strerror}): use it in one process only"
            warnings.warn(message, stacklevel=3)
        _write(descriptor, f"{os.getpid()} {socket.gethostname()}\n")
        yield directory
        _write(descriptor, "")
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> None:
    """Lock a file until it is closed; ``BlockingIOError`` if it is locked already."""
    while wait:
        try:
            _lock(descriptor, wait=False)
            return
        except BlockingIOError:
            time.sleep(_PAUSE)
    try:
        import fcntl
    except ImportError:  # Windows, where locked bytes cannot be read: lock one beyond the content
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(descriptor: int, text: str) -> None:
    """Replace the content of the lock file; on a full disk it stays empty."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode())


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    words = os.read(descriptor, 300).decode(errors="replace").split()
    if len(words) != 2:
        return "another process"
    own = words[1] == socket.gethostname()
    return f"process {words[0]}" + ("" if own else f" on {words[1]}")
