"""A lock on an output directory, so that two processes do not write the same files."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DirectoryInUseError

#: Hidden file in the directory. It stays when the lock is released.
LOCK_FILE = ".lock"
#: What file systems without locks answer.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def directory_lock(path: str | os.PathLike) -> Iterator[Path]:
    """Hold an output directory for as long as the context lasts.

    The operating system releases the lock when the process ends, however it ends. Where a file
    system knows no locks, a warning says so and the context does nothing.

    Parameters
    ----------
    path : path
        Created if it does not exist.

    Yields
    ------
    path

    Raises
    ------
    DirectoryInUseError
        If another process, or another context of this one, holds the directory.
    OSError
        If the directory cannot be made or written to.
    """
    import fcntl

    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUseError(
                f"output: expected a directory that no other process writes, got {directory}, "
                f"which is held by {_holder(descriptor)}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            message = f"{directory} cannot be locked ({error.strerror}): start no second process"
            warnings.warn(message, stacklevel=3)
        _write(descriptor, f"{os.getpid()} {socket.gethostname()}\n")
        yield directory
        _write(descriptor, "")
    finally:
        os.close(descriptor)


def _write(descriptor: int, text: str) -> None:
    """Replace what the lock file says; on a full disk it stays empty."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    words = os.pread(descriptor, 300, 0).decode(errors="replace").split()
    if len(words) != 2:
        return "another process"
    own = words[1] == socket.gethostname()
    return f"process {words[0]}" + ("" if own else f" on {words[1]}")
