"""Storage of the model in a serialised System: its content, or a reference to its file."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import InputError, ModelFileError, describe
from ..model import NequIPLRPotential
from ..model.io import deserialize_model, read_model_file, shared_models
from ..pretrained import model_path, named_models

#: Version of the pickle format; Systems of a newer version are rejected.
FORMAT_VERSION = 1
_REMEDY = (
    "put that file back, there or into the current directory, or make the System anew "
    "(embed_model=True stores the model in it)"
)


@dataclass(frozen=True)
class ModelFile:
    """Reference of a System to a model that it does not contain.

    Parameters
    ----------
    source : str
        Absolute path, or the name of a shipped or downloaded model.
    digest : str
        SHA-256 of the file, in hexadecimal digits.
    """

    source: str
    digest: str

    @classmethod
    def of(cls, model: object, name: str = "model") -> ModelFile:
        """Make a reference to a model file, or to a shipped or downloaded model.

        Parameters
        ----------
        model : path or str
            Path of a model file, or name of a model.
        name : str
            Name of the argument in errors.

        Raises
        ------
        InputError
            If ``model`` is neither a path nor a name.
        ModelFileError
            If there is no such file or model.
        """
        if not isinstance(model, str | Path):
            expected = (
                "a path or a shipped name, because embed_model=False stores no more than that"
            )
            raise InputError(describe(name, type(model).__name__, expected))
        path = model_path(model, name)
        source = str(model) if str(model) in named_models() else str(path.resolve())
        return cls(source, _digest(path))

    def load(self) -> NequIPLRPotential:
        """Load the model, see :meth:`read`."""
        return deserialize_model(self.read())

    def read(self, beside: Path | None = None) -> bytes:
        """Read the model file.

        A file that is not at its path is searched for in the current directory.

        Parameters
        ----------
        beside : path, optional
            Additional directory to search.

        Raises
        ------
        ModelFileError
            If the file is not found, or its content has changed.
        """
        path = Path(self.source)
        named = named_models().get(self.source)
        other = None if beside is None else beside / path.name
        candidates = (named, path, Path(path.name), other)
        places = [p for p in candidates if p is not None and p.is_file()]
        if not places:
            expected = f"the file {self.source}, which the System refers to"
            raise ModelFileError(f"{describe('model', 'no such file', expected)}; {_REMEDY}")
        found = next((p for p in places if _digest(p) == self.digest), None)
        if found is None:
            expected = f"the file that the System was made with (SHA-256 {self.digest[:12]}…)"
            got = f"{places[0]} with other contents (SHA-256 {_digest(places[0])[:12]}…)"
            raise ModelFileError(f"{describe('model', got, expected)}; {_REMEDY}")
        return read_model_file(found)


def _digest(path: Path) -> str:
    return hashlib.sha256(read_model_file(path)).hexdigest()


def load_embedded(model: bytes | ModelFile) -> NequIPLRPotential:
    """The model that a System contains or refers to, on the CPU, as a new object."""
    return deserialize_model(model.read() if isinstance(model, ModelFile) else model)


def shared_embedded(
    model: bytes | ModelFile, dtype: torch.dtype | None = None, device: str = "cpu"
) -> NequIPLRPotential:
    """The model of :func:`load_embedded` as a shared object, which must not be modified."""
    data = model.read() if isinstance(model, ModelFile) else model
    return shared_models.get(data, dtype, device)


def pack(token: str, settings: Any) -> dict[str, Any]:
    """Plain values for a pickle, readable without any class of this package.

    Parameters
    ----------
    token : str
        Identifier of the computation in its process.
    settings : ComputationSettings
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    if isinstance(values["model"], ModelFile):
        values["model"] = dataclasses.asdict(values["model"])
    return {
        "format": FORMAT_VERSION,
        "version": __version__,
        "token": token,
        "settings": values,
    }


def unpack(payload: dict[str, Any], known: type) -> dict[str, Any]:
    """The settings that :func:`pack` stored, as arguments of the constructor of ``known``.

    Raises
    ------
    InputError
        If a newer version of the package wrote them.
    """
    names = {field.name for field in dataclasses.fields(known)}
    values, version = dict(payload["settings"]), payload["format"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise InputError(describe("system", f"format {version!r}", "a whole number"))
    foreign = sorted(set(values) - names - {"cutoff"})  # written by earlier versions
    if version > FORMAT_VERSION or foreign:
        settings = f" with the settings {', '.join(foreign)}" if foreign else ""
        got = f"format {version}{settings}, written by openmm-nequiplr {payload['version']}"
        expected = f"format {FORMAT_VERSION} or older, for openmm-nequiplr {__version__}"
        remedy = "upgrade openmm-nequiplr, or make the System anew with this version"
        raise InputError(f"{describe('system', got, expected)}; {remedy}")
    if isinstance(values["model"], dict):
        values["model"] = ModelFile(**values["model"])
    return values
