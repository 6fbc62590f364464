"""Time of the named parts of a step, measured around methods of the package."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

from openmm_nequiplr.model import NequIPLRPotential, evaluation
from openmm_nequiplr.model.memory import ChargeMemory
from openmm_nequiplr.simulation.computation import Computation

_record: dict[str, float] = {}


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Add the time of a ``with`` block to a part; parts must not be nested."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        _record[name] = _record.get(name, 0.0) + time.perf_counter() - begin


@contextlib.contextmanager
def collect() -> Iterator[dict[str, float]]:
    """Measure inside a ``with`` block: the dictionary fills with seconds per part."""
    _record.clear()
    parts: dict[str, float] = {}
    yield parts
    parts.update(_record)


def measure() -> None:
    """Put the methods of an evaluation under their parts; older versions have none of them."""
    inference = getattr(evaluation, "Inference", None)
    if inference is None:
        return
    methods = {
        "neighbours": [(Computation, "_graph")],
        "stage 1": [(NequIPLRPotential, "edge_features"), (inference, "electronegativities")],
        "Coulomb operator": [(ChargeMemory, "mesh")],
        "equilibration": [(inference, "equilibrate")],
        "stage 2 and its gradient": [(inference, "energy_stage")],
        "adjoint": [(inference, "adjoint")],
        "Coulomb": [(inference, "coulomb"), (inference, "external_sum")],
        "gradient": [(inference, "gradient")],
    }
    for name, owners in methods.items():
        for owner, method in owners:
            setattr(owner, method, _timed(name, getattr(owner, method)))


def _timed(name: str, method: Callable) -> Callable:
    @functools.wraps(method)
    def timed(*arguments: object, **keywords: object) -> object:
        with part(name):
            return method(*arguments, **keywords)

    return timed
