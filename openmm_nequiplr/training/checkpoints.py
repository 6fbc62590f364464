"""Checkpoints of a training: atomic writes, reads without pickle, one previous checkpoint kept."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from ..errors import InputError, describe, first_line
from ..writing import replace_file

CHECKPOINT = "last.ckpt"
#: The previous checkpoint, used if the last one is damaged.
PREVIOUS = "previous.ckpt"
#: New name of a last checkpoint that cannot be read.
DAMAGED = "damaged.ckpt"


class CheckpointFiles(TorchCheckpointIO):
    """Reads and writes checkpoint files for Lightning."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint and keep the previous one; older ones are deleted.

        Raises
        ------
        OSError
            If the file cannot be written, for example on a full disk. The message names it.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        replace_file(path, buffer.getbuffer(), earlier=Path(path).with_name(PREVIOUS))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain values; nothing in it is executed."""
        return torch.load(path, map_location="cpu", weights_only=True)


def has_checkpoint(output: Path) -> bool:
    """Whether a directory contains a checkpoint, readable or not."""
    return any((output / name).is_file() for name in (CHECKPOINT, PREVIOUS))


def readable_checkpoint(output: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """Newest readable checkpoint in a directory.

    Returns
    -------
    path : Path
    contents : dict
    damaged : list of str
        Descriptions of newer checkpoints that cannot be read.

    Raises
    ------
    InputError
        If there is no readable checkpoint.
    """
    damaged: list[str] = []
    for name in (CHECKPOINT, PREVIOUS):
        path = output / name
        if not path.is_file():
            continue
        try:
            contents = torch.load(path, map_location="cpu", weights_only=True)
            _check(contents)
        except Exception as error:  # torch raises many types on damaged files
            why = f"{type(error).__name__}: {first_line(error)[:120]}"
            damaged.append(f"{path} is damaged or no checkpoint ({why})")
        else:
            return path, contents, damaged
    expected = f"a checkpoint ({CHECKPOINT} or {PREVIOUS}) that a training wrote"
    raise InputError(describe("resume", "; ".join(damaged) or str(output), expected))


def set_aside(output: Path) -> None:
    """Rename a last checkpoint that cannot be read."""
    os.replace(output / CHECKPOINT, output / DAMAGED)


def _check(contents: Any) -> None:
    for name in ("state_dict", "optimizer_states", "callbacks", "loops", "epoch", "nequiplr"):
        if not isinstance(contents, dict) or name not in contents:
            raise ValueError(f"no {name}")
