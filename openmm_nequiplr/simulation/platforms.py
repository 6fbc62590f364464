"""Choice of OpenMM platforms, their properties and threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import openmm
import torch

from ..errors import BackendError, describe
from ..threads import limited_threads

_ON_GPU = ("CUDA", "HIP")
_PLATFORMS = {"single": ("CPU", "Reference"), "double": ("Reference", "CPU")}


def platform_names() -> list[str]:
    """Names of the available OpenMM platforms."""
    count = openmm.Platform.getNumPlatforms()
    return [openmm.Platform.getPlatform(index).getName() for index in range(count)]


def _available(argument: str, name: str | None, preferred: Sequence[str]) -> str:
    """The requested platform, by default the first available one of several."""
    there = platform_names()
    if name is None:
        return next((p for p in preferred if p in there), there[0])
    if name not in there:
        raise BackendError(describe(argument, name, f"one of {', '.join(there)}"))
    return name


def _properties(name: str, device: str | None, precision: str | None) -> dict[str, str]:
    """Properties that select the GPU of a torch device such as ``"cuda:1"``, and the precision."""
    known, properties = openmm.Platform.getPlatform(name).getPropertyNames(), {}
    kind, _, index = (device or "").partition(":")
    if kind == "cuda" and index and "DeviceIndex" in known:
        properties["DeviceIndex"] = index
    if "Precision" in known:
        properties["Precision"] = "double" if precision == "double" else "mixed"
    return properties


def coulomb_platform(
    name: str | None, precision: str, device: str | None = None
) -> tuple[str, dict[str, str]]:
    """Platform and properties of the Context that computes the Coulomb sum.

    By default the sum runs where the network does: on the GPU of its torch device, or on the CPU.
    On the CPU the platform is CPU (single precision) or, for ``precision="double"``, Reference,
    the only platform that uses double precision throughout.

    Parameters
    ----------
    name : str or None
        Requested platform.
    precision : {"single", "double"}
    device : str, optional
        torch device of the network.

    Raises
    ------
    BackendError
        If the platform is not available.
    """
    on_gpu = _ON_GPU if (device or "").startswith("cuda") else ()
    name = _available("coulomb_platform", name, (*on_gpu, *_PLATFORMS[precision]))
    return name, _properties(name, device, precision)


def choose_platform(
    name: str | None, device: str | None, precision: str | None
) -> tuple[openmm.Platform, dict[str, str]]:
    """Platform and properties of a simulation whose network is on a torch device.

    The default is CUDA if OpenMM and torch have it, otherwise CPU.

    Raises
    ------
    BackendError
        If the platform is not available.
    """
    on_gpu = ("CUDA",) if torch.cuda.is_available() else ()
    name = _available("platform", name, (*on_gpu, "CPU", "Reference"))
    return openmm.Platform.getPlatform(name), _properties(name, device, precision)


@contextmanager
def limited_platform(count: int | None) -> Iterator[None]:
    """Context manager that limits the threads of torch and of OpenMM's CPU platform."""
    there = count is not None and "CPU" in platform_names()
    cpu = openmm.Platform.getPlatform("CPU") if there else None
    default = cpu.getPropertyDefaultValue("Threads") if cpu else ""
    with limited_threads(count):
        if cpu:
            cpu.setPropertyDefaultValue("Threads", str(count))
        try:
            yield
        finally:
            if cpu:
                cpu.setPropertyDefaultValue("Threads", default)


def busy_cores(threads: int | None) -> list[str]:
    """A warning if other processes occupy cores, so that threads wait for one another."""
    count = torch.get_num_threads() if threads is None else threads
    try:
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    except (AttributeError, OSError):  # not available on this operating system
        return []
    free = max(cores - load, 0.0)
    if count < 2 or count <= free + 0.5:
        return []
    return [
        f"note: {count} threads on {cores} cores of which about {free:.1f} are free (load "
        f"{load:.1f}): threads wait for the slowest; fewer (--threads) may be faster"
    ]
