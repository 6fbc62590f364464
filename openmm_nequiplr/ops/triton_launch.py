"""Compilation of generated Triton kernels, and their launch on a device."""

from __future__ import annotations

import functools
import hashlib
import linecache
from typing import Any

import torch
import triton
import triton.language as tl


@functools.cache
def generated(source: str) -> dict[str, Any]:
    """Execute source code that defines kernels; return the definitions by name.

    Triton reads the source of its functions, so it is stored in :mod:`linecache`.
    """
    name = f"<kernels {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    defined: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": __name__}
    exec(compile(source, name, "exec"), defined)
    return defined


def launch(kernel: Any, programs: int, *arguments: Any, warps: int = 1, **constants: Any) -> None:
    """Launch a kernel on the device of its first argument.

    Parameters
    ----------
    kernel : triton.JITFunction
    programs : int
        Number of programs; 0 does nothing.
    *arguments
        Contiguous tensors and numbers.
    warps : int
        Warps of each program.
    **constants
        Compile-time constants.
    """
    if programs > 0:
        with torch.cuda.device_of(arguments[0]):
            kernel[(programs,)](*arguments, num_warps=warps, enable_fp_fusion=True, **constants)
