"""Files that have their old or their new content, never a part of it."""

from __future__ import annotations

import errno
import os

import pytest

from openmm_nequiplr.writing import append_text, replace_file


def test_replaced_and_kept(tmp_path):
    path, earlier = tmp_path / "file", tmp_path / "earlier"
    for data in (b"one", "two ü", memoryview(b"three")):
        replace_file(path, data, earlier)
    assert path.read_bytes() == b"three"
    assert earlier.read_text(encoding="utf-8") == "two ü"
    append_text(path, " and more\r\n")
    assert path.read_bytes() == b"three and more\r\n"
    assert sorted(os.listdir(tmp_path)) == ["earlier", "file"]


def test_links_stay_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, there = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(there)
    for data in ("one", "two"):
        replace_file(link, data, tmp_path / "earlier")
    assert link.is_symlink()
    assert there.read_text() == "two"
    assert (tmp_path / "earlier").read_text() == "one"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Unix")
def test_a_pipe_is_written_into(tmp_path):
    """As ``/dev/null`` is, in whose place root could put a file."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    replace_file(path, "one")
    assert os.read(reader, 10) == b"one"
    os.close(reader)
    assert path.is_fifo()


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    path, earlier = tmp_path / "file", tmp_path / "earlier"
    replace_file(path, "one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: replace_file(path, "two", earlier), lambda: append_text(path, "")):
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
            write()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["file"]
