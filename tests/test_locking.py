"""Locks on output directories."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import types

import pytest

from openmm_nequiplr.errors import DirectoryInUseError, NequIPLRError
from openmm_nequiplr.locking import directory_lock

_HOLD = """
import sys, time
from openmm_nequiplr.locking import directory_lock
with directory_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_at_a_time_and_one_after_another(tmp_path):
    output = tmp_path / "new" / "output"
    for _ in range(2):
        with directory_lock(output) as held:
            assert held == output
            with pytest.raises(DirectoryInUseError) as caught, directory_lock(output):
                pass
            assert str(output) in str(caught.value)
            assert f"process {os.getpid()}" in str(caught.value)
    assert isinstance(caught.value, NequIPLRError)
    with directory_lock(output / "below"), directory_lock(output):
        pass


def test_an_error_within_releases(tmp_path):
    with pytest.raises(KeyError), directory_lock(tmp_path):
        raise KeyError
    with directory_lock(tmp_path):
        pass


def test_the_death_of_a_process_releases(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(DirectoryInUseError, match=f"process {process.pid}$"),
            directory_lock(tmp_path),
        ):
            pass
        process.send_signal(signal.SIGKILL)
    with directory_lock(tmp_path):
        pass


def test_without_locks_it_says_so(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"), directory_lock(tmp_path):
        pass


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "output").write_text("")
    with pytest.raises(FileExistsError), directory_lock(tmp_path / "output"):
        pass


def test_where_there_is_no_fcntl(tmp_path, monkeypatch):
    """Windows locks bytes, for one open file at a time."""
    held: dict[int, tuple[int, int]] = {}

    def locking(descriptor, mode, count):
        inode = os.fstat(descriptor).st_ino
        if inode in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held[inode] = os.lseek(descriptor, 0, os.SEEK_CUR), count

    windows = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with directory_lock(tmp_path):
        text = (tmp_path / ".lock").read_bytes()
        assert text.split()[0] == str(os.getpid()).encode()
        ((first, count),) = held.values()
        assert (first > len(text), count) == (True, 1)
        with (
            pytest.raises(DirectoryInUseError, match=f"process {os.getpid()}"),
            directory_lock(tmp_path),
        ):
            pass
    held.clear()  # as closing the file does
    assert (tmp_path / ".lock").read_bytes() == b""
    with directory_lock(tmp_path):
        pass
