"""ASCII paths for libraries that cannot open other paths."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class AsciiPath:
    """ASCII path of a file, valid as long as this object lives; mdtraj's C readers need one.

    Attributes
    ----------
    path : str
        Path of the file itself if it is ASCII, else of a link to it or a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        if self.path.isascii():
            return
        folder = tempfile.mkdtemp(prefix="nequiplr-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        link = Path(folder) / ("file" + "".join(path.suffixes[-2:]))
        try:
            link.symlink_to(path.resolve())
        except OSError:
            shutil.copyfile(path, link)
        self.path = str(link)
