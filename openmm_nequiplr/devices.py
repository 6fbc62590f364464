"""Selection of torch devices."""

from __future__ import annotations

import torch

from .errors import BackendError


def resolve_device(device: str | torch.device | None) -> str:
    """Name of the torch device to use; by default CUDA if available, else the CPU.

    Raises
    ------
    BackendError
        If the device is unknown or absent, or cannot compute.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        float(torch.zeros((), device=device))  # a device without data ("meta") fails here
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"device: expected one that torch can use, got {device!r} ({reason})"
        ) from error
    return str(device)
