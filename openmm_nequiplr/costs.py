"""From how many atoms on one way of computing is faster than another, on this machine.

The defaults were measured on processor cores. ``nequiplr doctor --calibrate`` measures here and
keeps the numbers in the user's cache, in a file that a process reads once; delete it for the
defaults. They choose among ways that agree, and change no result beyond the solver's tolerance.
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
    """Numbers of atoms.

    Parameters
    ----------
    periodic, free : int
        From where on iterations solve for charges faster than a dense matrix, in a periodic cell
        and without one, where all pairs are summed in any case.
    gpu : int
        From where on the device is faster than the processor.
    """

    periodic: int = 200
    free: int = 2000
    gpu: int = 0


def costs_file() -> Path:
    """Where measured numbers are kept; it need not exist."""
    return cache_directory() / "costs.json"


def device_name(device: Any) -> str:
    """The key of a device in the file: the model of a GPU, or ``"cpu"``."""
    import torch

    place = torch.device("cpu" if device is None else device)
    if place.type == "cuda" and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(place))
    return place.type


@functools.cache
def measured(path: Path) -> dict[str, Crossings]:
    """The numbers in a file by name of the device; empty without one, and said where it is none."""
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
        notify(f"{path}: not read ({error}); nequiplr doctor --calibrate writes it anew")
        return {}


def crossings(device: Any = None) -> Crossings:
    """The numbers for a torch device, by default the processor."""
    known = measured(costs_file())
    return known.get(device_name(device), Crossings()) if known else Crossings()


def keep(found: dict[str, Crossings]) -> Path:
    """Write measured numbers, beside those of other devices, and return the file."""
    path = costs_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {**measured(path), **found}
    text = json.dumps({name: dataclasses.asdict(each) for name, each in known.items()}, indent=1)
    replace_file(path, text + "\n")
    measured.cache_clear()
    return path


def default_device(count: int, given: str | None = None) -> str:
    """The device that is given, or CUDA where it is available, unless the processor is faster.

    Parameters
    ----------
    count : int
        Number of atoms.
    given : str, optional
        What was asked for.
    """
    from .devices import resolve_device

    if given is not None:
        return given
    found, least = resolve_device(None), crossings("cuda").gpu
    if found == "cpu" or count >= least:
        return found
    notify(f"device: the CPU, faster than the GPU below {least} atoms here (device='cuda' insists)")
    return "cpu"
