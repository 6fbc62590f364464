"""Crossovers: numbers of atoms from which one method is faster than another on this machine.

The defaults were measured on CPU cores and on an H100. ``nequiplr doctor --calibrate`` measures the
crossovers of this machine and stores them in a file in the user's cache, which a process reads
once. Deleting the file restores the defaults. The methods agree within the tolerance of the charge
solver.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import notify
from .pretrained import cache_directory
from .writing import replace_file


@dataclass(frozen=True)
class Crossings:
    """Crossovers as numbers of atoms.

    Parameters
    ----------
    periodic, free : int
        Crossover from the dense to the iterative charge solver, in a periodic cell and without one
        (where all pairs are summed in either case).
    gpu : int
        Crossover from the CPU to the device.
    """

    periodic: int = 150
    free: int = 2000
    gpu: int = 0


#: On a GPU, where the kernels of an iterative solver are recorded and launched as a whole.
ON_GPU = Crossings(periodic=1, free=1)


def costs_file() -> Path:
    """File of the measured crossovers, which may not exist."""
    return cache_directory() / "costs.json"


def device_name(device: Any) -> str:
    """Key of a device in the file: the model of a GPU, or ``"cpu"``."""
    import torch

    place = torch.device("cpu" if device is None else device)
    if place.type == "cuda" and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(place))
    return place.type


@functools.cache
def measured(path: Path) -> dict[str, Crossings]:
    """Crossovers in a file by name of the device; empty if absent or (with a note) invalid."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in dataclasses.fields(Crossings)}
        for values in found.values():
            if not set(values) <= names or not all(type(n) is int for n in values.values()):
                raise ValueError(f"numbers of atoms for {', '.join(sorted(names))}")
        return {name: Crossings(**values) for name, values in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        notify(f"{path}: not read ({error}); nequiplr doctor --calibrate replaces it")
        return {}


def crossings(device: Any = None) -> Crossings:
    """Crossovers of a torch device, by default the CPU."""
    known, name = measured(costs_file()), device_name(device)
    return known.get(name, Crossings() if name == "cpu" else ON_GPU)


def keep(found: dict[str, Crossings]) -> Path:
    """Add measured crossovers to the file, and return the file."""
    path = costs_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {**measured(path), **found}
    text = json.dumps({name: dataclasses.asdict(each) for name, each in known.items()}, indent=1)
    replace_file(path, text + "\n")
    measured.cache_clear()
    return path


def default_device(count: int, given: str | None = None) -> str:
    """The given device, or CUDA if it is available and faster than the CPU, or the CPU.

    Parameters
    ----------
    count : int
        Number of atoms.
    given : str, optional
        Device requested by the user.
    """
    from .devices import resolve_device

    if given is not None:
        return given
    found, least = resolve_device(None), crossings("cuda").gpu
    if found == "cpu" or count >= least:
        return found
    notify(
        f"device: the CPU, which is faster than the GPU below {least} atoms (device='cuda' "
        "forces the GPU)"
    )
    return "cpu"
