"""Model files: safetensors with the configuration in the header, without pickles."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as _deserialize
from safetensors.torch import save as _serialize

from ..devices import resolve_device
from ..errors import InputError, ModelFileError, describe
from ..pretrained import model_path
from ..writing import replace_file
from .config import ModelConfig
from .potential import NequIPLRPotential

#: Version of the file format; newer files cannot be read.
FORMAT_VERSION = 3
_FORMAT = "openmm-nequiplr"
_LARGEST_FILE = 4 * 2**30
# Largest ratio of the weights of a configuration to the numbers in a file, and smallest file.
_MOST_EXTRA, _SMALL = 100.0, 10_000


def model_digest(model: NequIPLRPotential) -> str:
    """SHA-256 of the configuration and weights of a model; equal models have equal results."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def serialize_model(model: NequIPLRPotential, metadata: dict[str, str] | None = None) -> bytes:
    """Content of a model file; see :func:`save_model`."""
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
    """Write a model with its configuration; an existing file is replaced atomically.

    Parameters
    ----------
    model : NequIPLRPotential
    path : path
        The usual suffix is ``.safetensors``.
    metadata : dict of str to str, optional
        Entries to add to ``model.metadata`` in the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, serialize_model(model, metadata))


def read_model_file(path: Path) -> bytes:
    """Content of a model file, after a check of its size."""
    _check_size(path.stat().st_size, str(path))
    return path.read_bytes()


def load_model(
    model: str | os.PathLike,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> NequIPLRPotential:
    """Load a model for evaluation.

    Nothing in the file is executed, and its sizes are checked before a model is built.

    Parameters
    ----------
    model : path or str
        A model file, or the name of a shipped or downloaded model.
    device : torch.device or str
    dtype : torch.dtype, optional
        Precision of the network; by default as saved.

    Raises
    ------
    ModelFileError
        If there is no such file or name, or the file is not a model file of this package, is
        damaged, or contains weights that are not finite.
    BackendError
        If the device does not exist.
    """
    path = model_path(model)
    where = "cpu" if device is None else resolve_device(device)
    try:
        _check_size(path.stat().st_size, str(path))
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ModelFileError):
            raise
        message = f"model: {path} is not a readable safetensors file: {error}"
        raise ModelFileError(message) from error
    return _restore(header, tensors, str(path)).to(device=where, dtype=dtype).eval()


def deserialize_model(data: bytes, source: str = "the bytes of a model") -> NequIPLRPotential:
    """Model from the result of :func:`serialize_model`, on the CPU, for evaluation.

    Parameters
    ----------
    data : bytes
    source : str
        Name of the data in messages.

    Raises
    ------
    ModelFileError
        If they are not a model file of this package.
    """
    _check_size(len(data), source)
    try:
        tensors = _deserialize(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"model: {source}: not readable safetensors: {error}") from error
    return _restore(header, tensors, source).eval()


def _check_size(size: int, source: str) -> None:
    if size > _LARGEST_FILE:
        got = f"{source} of {size / 2**30:.1f} GiB"
        raise ModelFileError(describe("model", got, f"at most {_LARGEST_FILE // 2**30} GiB"))


def _restore(
    header: dict[str, str], tensors: dict[str, torch.Tensor], source: str
) -> NequIPLRPotential:
    if header.get("format") != _FORMAT:
        expected = "a file written by openmm_nequiplr.save_model"
        raise ModelFileError(describe("model", source, expected))
    version = _version(header, source)
    settings = _json_object(header, "config", source)
    if version < 2:  # before scaled electronegativities and shorter last layers were introduced
        settings.setdefault("scalar_last_layer", False)
    try:
        config = ModelConfig.from_dict(settings)
    except InputError as error:
        raise ModelFileError(f"model: the configuration in {source}: {error}") from error
    stored = sum(value.numel() for value in tensors.values())
    if config.num_weights > _MOST_EXTRA * max(stored, _SMALL):
        got = f"{stored} numbers in {source}"
        expected = f"about {config.num_weights:.0e} for its configuration"
        raise ModelFileError(describe("model", got, expected))
    try:
        potential = NequIPLRPotential(config)
    except Exception as error:  # e3nn raises several types
        got = f"{type(error).__name__}: {error}"
        expected = f"a configuration in {source} from which a network can be built"
        raise ModelFileError(describe("model", got, expected)) from error
    hardness = tensors.get("hardness_parameter")
    if hardness is not None and hardness.dtype in (torch.float32, torch.float64):
        potential.to(hardness.dtype)
    if version < 2:
        names = ("electronegativity_shifts", "electronegativity_scales")
        tensors = {**{name: getattr(potential, name) for name in names}, **tensors}
    if version < 3:  # contains constants of e3nn's modules
        tensors = {k: v for k, v in tensors.items() if not k.endswith(".output_mask")}
    try:
        load_weights(potential, tensors)
    except InputError as error:
        raise ModelFileError(f"model: the weights in {source} do not fit: {error}") from error
    notes = _json_object(header, "metadata", source) if "metadata" in header else {}
    potential.metadata = {str(name): str(value) for name, value in notes.items()}
    return potential


def _version(header: dict[str, str], source: str) -> int:
    text = header.get("format_version", "0")
    if not re.fullmatch("[0-9]{1,6}", text):
        expected = f"a format version, a whole number up to {FORMAT_VERSION}"
        raise ModelFileError(describe("model", f"{source} of version {text!r}", expected))
    version = int(text)
    if version > FORMAT_VERSION:
        expected = f"format version {FORMAT_VERSION} or older; upgrade openmm-nequiplr"
        raise ModelFileError(describe("model", f"{source} of format version {version}", expected))
    return version


def _json_object(header: dict[str, str], name: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(header[name])
    except (KeyError, ValueError, RecursionError) as error:
        what = "none" if isinstance(error, KeyError) else f"one that is not JSON ({error})"
        expected = f"a {name} in the header of {source}"
        raise ModelFileError(describe("model", what, expected)) from error
    if not isinstance(values, dict):
        expected = f"names and values as the {name} in the header of {source}"
        raise ModelFileError(describe("model", values, expected))
    return values


def load_weights(potential: NequIPLRPotential, tensors: dict[str, torch.Tensor]) -> None:
    """Load tensors by name; all weights, except empty ones, must be given, and no others.

    Raises
    ------
    InputError
        If names are missing or unknown, or a tensor has the wrong shape or type, or contains NaN or
        infinity.
    """
    state = potential.state_dict()
    needed = {name for name, value in state.items() if value.numel()}
    missing, extra = sorted(needed - set(tensors)), sorted(set(tensors) - set(state))
    if missing or extra:
        raise InputError(f"weights: missing {missing[:8]}, unexpected {extra[:8]}")
    for name, value in tensors.items():
        target = state[name]
        if value.shape != target.shape:
            expected = f"shape {tuple(target.shape)}"
            raise InputError(describe(f"weights: {name}", tuple(value.shape), expected))
        exact = value.dtype in (torch.float32, torch.float64) or value.dtype == target.dtype
        if value.is_floating_point() != target.is_floating_point() or not exact:
            expected = str(target.dtype).removeprefix("torch.")
            raise InputError(describe(f"weights: {name}", str(value.dtype), expected))
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            got = f"{count} of {value.numel()} NaN or infinite"
            raise InputError(describe(f"weights: {name}", got, "finite numbers"))
    potential.load_state_dict({**state, **tensors})


class SharedModels:
    """Cache of models for evaluation, by the content of their files.

    Building a model is slow, and each one that e3nn and TorchScript build occupies about 1 MB of
    memory permanently. The most recently used models are kept. They are shared and must not be
    modified.

    Parameters
    ----------
    most : int
        Largest number of models.
    """

    def __init__(self, most: int = 4) -> None:
        self._most, self._lock = most, threading.Lock()
        self._models: OrderedDict[tuple[str, str, str], NequIPLRPotential] = OrderedDict()

    def get(
        self,
        data: bytes,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        source: str = "the bytes of a model",
    ) -> NequIPLRPotential:
        """Model from the result of :func:`serialize_model`; its weights require no gradients.

        Parameters
        ----------
        data : bytes
        dtype : torch.dtype, optional
            Precision of the network; by default as saved.
        device : str
        source : str
            Name of the data in messages.
        """
        key = hashlib.sha256(data).hexdigest(), str(dtype), str(device)
        with self._lock:
            model = self._models.get(key)
            if model is None:
                model = deserialize_model(data, source).to(dtype=dtype, device=device)
                model.requires_grad_(False)
                while len(self._models) >= self._most:
                    self._models.popitem(last=False)
                self._models[key] = model
            self._models.move_to_end(key)
            return model

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()


#: Cache of this process.
shared_models = SharedModels()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_models.after_fork)
