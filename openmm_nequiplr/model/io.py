"""Model files: safetensors with the configuration in the header. No pickle."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as _serialize

from ..errors import InputError, ModelFileError, describe
from .config import ModelConfig
from .potential import NequIPLRPotential

#: Version of the file layout; files of a newer one are refused.
FORMAT_VERSION = 2
_FORMAT = "openmm-nequiplr"


def shipped_models() -> dict[str, Path]:
    """Name and path of every model that comes with the package."""
    folder = Path(str(resources.files("openmm_nequiplr"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def shipped_structure(name: str) -> Path:
    """Path of the start structure (extended XYZ) of a shipped model.

    Raises
    ------
    InputError
        If no such model is shipped.
    """
    models = shipped_models()
    if name not in models:
        raise InputError(describe("name", name, f"a shipped model {sorted(models)}"))
    return models[name].with_suffix(".extxyz")


def model_path(model: str | os.PathLike) -> Path:
    """Path of a model file; the name of a shipped model stands for that model's file.

    A file or directory that has a shipped model's name, such as results of its runs, does not
    change that; ``./NAME`` is the file.

    Raises
    ------
    ModelFileError
        If there is no such file or shipped model.
    """
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if not path.is_file():
        got = f"{model}, a directory" if path.is_dir() else str(model)
        expected = f"a model file or a shipped model {sorted(shipped)}"
        raise ModelFileError(describe("model", got, expected))
    return path


def serialize_model(model: NequIPLRPotential, metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a model file; see :func:`save_model`."""
    header = {
        "format": _FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(model.config.to_dict()),
        "metadata": json.dumps({**model.metadata, **(metadata or {})}),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if v.numel()}
    return _serialize(tensors, header)


def save_model(
    model: NequIPLRPotential, path: str | os.PathLike, metadata: dict[str, str] | None = None
) -> None:
    """Write a model with its configuration; the file is replaced in one step.

    Parameters
    ----------
    model : NequIPLRPotential
    path : path
        By custom it ends in ``.safetensors``.
    metadata : dict of str to str, optional
        Added to ``model.metadata`` in the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_bytes(serialize_model(model, metadata))
    os.replace(part, target)


def load_model(
    model: str | os.PathLike,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> NequIPLRPotential:
    """Read a model, ready for evaluation.

    Parameters
    ----------
    model : path or str
        A model file, or the name of a shipped model.
    device : torch.device or str
    dtype : torch.dtype, optional
        Of the network; as saved when None.

    Raises
    ------
    ModelFileError
        If there is no such file or shipped model, or the file is not one of ours.
    """
    path = model_path(model)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        message = f"model: {path} is not a readable safetensors file: {error}"
        raise ModelFileError(message) from error
    return _restore(header, tensors, str(path)).to(device=device, dtype=dtype).eval()


def deserialize_model(data: bytes) -> NequIPLRPotential:
    """The model of :func:`serialize_model`'s bytes, on the CPU, ready for evaluation."""
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return _restore(header, load(data), "the bytes of a model").eval()


def _restore(
    header: dict[str, str], tensors: dict[str, torch.Tensor], source: str
) -> NequIPLRPotential:
    if header.get("format") != _FORMAT:
        expected = "a file written by openmm_nequiplr.save_model"
        raise ModelFileError(describe("model", source, expected))
    version = int(header.get("format_version", "0"))
    if version > FORMAT_VERSION:
        expected = f"format version {FORMAT_VERSION} or older; upgrade openmm-nequiplr"
        raise ModelFileError(describe("model", f"{source} of format version {version}", expected))
    settings = json.loads(header["config"])
    if version < 2:  # before there were scaled electronegativities and shorter last layers
        settings.setdefault("scalar_last_layer", False)
    potential = NequIPLRPotential(ModelConfig.from_dict(settings))
    potential.to(tensors["hardness_parameter"].dtype)
    if version < 2:
        names = ("electronegativity_shifts", "electronegativity_scales")
        tensors = {**{name: getattr(potential, name) for name in names}, **tensors}
    try:
        load_weights(potential, tensors)
    except (RuntimeError, KeyError) as error:
        raise ModelFileError(f"model: the weights in {source} do not fit: {error}") from error
    potential.metadata = dict(json.loads(header.get("metadata", "{}")))
    return potential


def load_weights(potential: NequIPLRPotential, tensors: dict[str, torch.Tensor]) -> None:
    """Load tensors by name; all must be there (empty ones apart) and none may be left over.

    Raises
    ------
    KeyError
        If names are missing or unknown.
    """
    state = potential.state_dict()
    needed = {name for name, value in state.items() if value.numel()}
    missing, extra = sorted(needed - set(tensors)), sorted(set(tensors) - set(state))
    if missing or extra:
        raise KeyError(f"missing {missing}, unexpected {extra}")
    potential.load_state_dict({**state, **tensors})
