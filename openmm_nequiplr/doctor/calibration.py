"""Measurement of the crossovers between solvers and devices (:mod:`openmm_nequiplr.costs`)."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable

from ..costs import Crossings, device_name, keep

#: Repetitions of the 8-atom cube of rock salt along the axes: periodic cells, and clusters.
CELLS = ((2, 2, 2), (2, 2, 3), (2, 3, 3), (3, 3, 3), (3, 3, 4), (3, 4, 4), (4, 4, 4), (5, 5, 5))
CLUSTERS = ((5, 5, 5), (5, 6, 6), (6, 6, 6), (6, 7, 7), (7, 7, 7), (7, 8, 8))
#: Systems for the comparison of a GPU with the CPU.
SYSTEMS = ((1, 1, 1), (1, 2, 2), *CELLS, (6, 6, 6), (8, 8, 8), (12, 12, 12))
# Steps that fill the history of charges, and timed steps, of which the fastest counts.
_WARM_UP, _STEPS = 8, 6


def calibrate(say: Callable[[str], None] = lambda line: None, sizes: int | None = None) -> str:
    """Measure the crossovers, store them, and return a summary with the name of their file.

    Parameters
    ----------
    say : callable
        Called with a line of text for each measurement.
    sizes : int, optional
        Number of system sizes to time, starting with the smallest; by default all.
    """
    import torch

    found = {}
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        numbers = {}
        for name, shapes, periodic in (("periodic", CELLS, True), ("free", CLUSTERS, False)):
            say(f"{device_name(device)}: dense or iterative solver, {name} …")
            dense, iterative = (
                functools.partial(_steps, periodic=periodic, device=device, solver=solver, width=4)
                for solver in ("dense", "iterative")
            )
            numbers[name] = crossing(shapes[:sizes], dense, iterative, say)
        if device != "cpu":
            say(f"{device_name(device)}: comparison with the CPU …")
            here, there = (functools.partial(_steps, device=place) for place in ("cpu", device))
            numbers["gpu"] = crossing(SYSTEMS[:sizes], here, there, say)
        found[device_name(device)] = Crossings(**numbers)
    lines = [
        f"{name}: iterative from {each.periodic} periodic or {each.free} isolated atoms"
        + (f", GPU from {each.gpu} atoms" if name != "cpu" else "")
        for name, each in found.items()
    ]
    try:
        lines.append(f"stored in {keep(found)}, which can be deleted")
    except OSError as error:
        lines.append(f"not stored ({error}): set NEQUIPLR_CACHE to a writable directory")
    return "\n".join(lines)


def crossing(
    shapes: Iterable[tuple[int, int, int]],
    first: Callable[[tuple[int, int, int]], Callable[[], object]],
    second: Callable[[tuple[int, int, int]], Callable[[], object]],
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Number of atoms from which the second method is faster; their steps are timed alternately.

    The crossover between two sizes is their geometric mean. The largest size is returned if the
    second method is never faster.
    """
    before = 0
    for shape in shapes:
        atoms, ways = 8 * math.prod(shape), (first(shape), second(shape))
        times = [math.inf, math.inf]
        for number in range(_WARM_UP + _STEPS):
            for k, step in enumerate(ways):
                begin = time.perf_counter()
                step()
                taken = time.perf_counter() - begin
                times[k] = min(times[k], taken) if number >= _WARM_UP else math.inf
        say(f"  {atoms} atoms: {1e3 * times[0]:.1f} and {1e3 * times[1]:.1f} ms")
        if times[1] < times[0]:
            return round(math.sqrt(before * atoms)) if before else atoms
        before = atoms
    return before


def _steps(
    shape: tuple[int, int, int],
    device: str,
    periodic: bool = True,
    solver: str = "auto",
    width: int = 32,
) -> Callable[[], object]:
    """Step function that evaluates rattled rock salt and moves its atoms a little."""
    import numpy as np
    import torch
    from ase.build import bulk

    from ..model import ModelConfig, NequIPLRPotential
    from ..model.building import GraphBuilder
    from ..model.evaluation import Evaluator

    torch.manual_seed(0)
    config = ModelConfig(
        type_names=("Cl", "Na"), r_max=4.0, num_layers=1, num_layers_charge=1, l_max=1,
        num_features=width, hardness_min=3.0, avg_num_neighbors=12.0,
    )  # fmt: skip
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * shape
    atoms.rattle(0.08, seed=1)
    evaluator = Evaluator(NequIPLRPotential(config), torch.float32, device, solver=solver)
    build = GraphBuilder(
        config, list(atoms.symbols), periodic, 0.0, skin=1.0, device=device,
        lattice_sum=not evaluator.iterative(len(atoms), periodic),
    )  # fmt: skip
    velocities = 0.003 * np.random.default_rng(0).normal(size=(len(atoms), 3))
    positions, cell = atoms.positions.copy(), atoms.cell.array

    def step() -> object:
        positions[:] += velocities
        return evaluator(build(positions, cell if periodic else None))

    return step
