"""Files that record the split of the data: written by trainings, read by evaluations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..checks import check_choice
from ..data.keys import DataKeys
from ..data.split import Split
from ..data.store import file_digest
from ..errors import InputError, describe
from ..writing import replace_file
from .config import DataConfig, load_config, resolve

#: Files in the output directory of a training: its split, and the configuration as used.
SPLIT, CONFIG_COPY = "split.json", "config.yaml"
#: Parts of a split.
PARTS = tuple(each.name for each in dataclasses.fields(Split))


@dataclasses.dataclass(frozen=True)
class RecordedPart:
    """One part of the split of a training.

    Parameters
    ----------
    files : tuple of path
        Data files.
    indices : tuple of int or None
        Indices of structures in these files; None for all structures.
    data : DataConfig
        Format and units with which the training read the files.
    keys : tuple of DataKeys
        Key names of each file.
    teacher : str or None
        Entry ``distill_from`` of the training.
    """

    files: tuple[Path, ...]
    indices: tuple[int, ...] | None
    data: DataConfig
    keys: tuple[DataKeys, ...]
    teacher: str | None


def write_split(output: Path, split: Split, data: DataConfig, config_path: str | Path) -> None:
    """Write ``split.json``: indices of each part, and the data files with their SHA-256.

    Parameters
    ----------
    output : path
        Output directory of the training.
    split : Split
        Split of the files in ``data.train``.
    data : DataConfig
    config_path : path
        Paths in `data` are relative to its directory.
    """
    files = {
        name: [_entry(resolve(each.path, config_path)) for each in data.files(name)]
        for name in PARTS
    }
    text = json.dumps({**dataclasses.asdict(split), "files": files})
    replace_file(output / SPLIT, text + "\n")


def recorded_part(model: Any, name: str, data: str | Path | None = None) -> RecordedPart:
    """One part of the split that was used in the training of a model.

    Parameters
    ----------
    model : path
        Model file in the output directory of its training.
    name : {"train", "validation", "test"}
    data : path, optional
        Current path of the only data file of the training; by default the recorded path.

    Raises
    ------
    InputError
        If there is no record in the directory of the model, the part is empty, or a data file is
        missing or has changed.
    """
    check_choice("split", name, PARTS)
    directory = Path(model).parent if isinstance(model, str | Path) else Path()
    path = directory / SPLIT
    if not isinstance(model, str | Path) or not path.is_file():
        expected = f"a model file in the output directory of its training, with {SPLIT}"
        raise InputError(describe("split", str(model), expected))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files = record["files"]
        whole = name != "train" and bool(files[name])
        indices = None if whole else tuple(map(int, record[name]))
        source = name if whole else "train"
        entries = [(each["path"], each["sha256"]) for each in files[source]]
    except (ValueError, KeyError, TypeError) as error:
        expected = "a record of this version, with files and their digests"
        raise InputError(describe("split", str(path), expected)) from error
    if indices == ():
        raise InputError(describe("split", f"{name}, which is empty in {path}", "another part"))
    if data is not None:
        if len(entries) > 1:
            raise InputError(describe("data", str(data), f"nothing, as {path} names several files"))
        entries = [(str(data), entries[0][1])]
    found = tuple(_checked(Path(file), digest, path) for file, digest in entries)
    config = load_config(directory / CONFIG_COPY)[0]
    keys = tuple(file.keys for file in config.data.files(source))
    return RecordedPart(found, indices, config.data, keys, config.distill_from)


def _entry(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": file_digest(path)}


def _checked(path: Path, digest: str, record: Path) -> Path:
    if not path.is_file():
        expected = f"the data file that {record} names, or DATA where it is now"
        raise InputError(describe("data", f"no {path}", expected))
    if file_digest(path) != digest:
        expected = f"the data file as it was in the training (SHA-256 in {record})"
        raise InputError(describe("data", f"{path}, which is another", expected))
    return path
