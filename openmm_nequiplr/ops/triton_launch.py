"""Triton kernels: from source text to a function, and from a function to a run on the device."""

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
    """Run source text that defines kernels; what it defines, by name.

    Triton reads the source of its functions: it is left where tracebacks find it as well.
    """
    name = f"<kernels {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    defined: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": __name__}
    exec(compile(source, name, "exec"), defined)
    return defined


def launch(kernel: Any, programs: int, *arguments: Any, warps: int = 1, **constants: Any) -> None:
    """Run a kernel, on the device of its first argument.

    Parameters
    ----------
    kernel : triton.JITFunction
    programs : int
        Nothing happens if there are none.
    *arguments
        Contiguous tensors, and numbers.
    warps : int
        For each program.
    **constants
        Values that the compiler knows.
    """
    if programs > 0:
        with torch.cuda.device_of(arguments[0]):
            kernel[(programs,)](*arguments, num_warps=warps, enable_fp_fusion=True, **constants)
