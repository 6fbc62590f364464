"""Measures from how many atoms on a way of computing pays: :mod:`openmm_nequiplr.costs`."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable

from ..costs import Crossings, device_name, keep

#: Cubes of rock salt along the three axes, of 8 atoms each: cells, and clusters without one.
CELLS = ((2, 2, 2), (2, 2, 3), (2, 3, 3), (3, 3, 3), (3, 3, 4), (3, 4, 4), (4, 4, 4), (5, 5, 5))
CLUSTERS = ((5, 5, 5), (5, 6, 6), (6, 6, 6), (6, 7, 7), (7, 7, 7), (7, 8, 8))
#: For a GPU against the processor.
SYSTEMS = ((1, 1, 1), (1, 2, 2), *CELLS, (6, 6, 6), (8, 8, 8), (12, 12, 12))
# Steps that fill the history of charges, and steps of which the fastest counts.
_WARM_UP, _STEPS = 4, 6


def calibrate(say: Callable[[str], None] = lambda line: None, sizes: int | None = None) -> str:
    """Measure, keep the numbers, and tell them and their file.

    Parameters
    ----------
    say : callable
        Told what is measured.
    sizes : int, optional
        How many of the sizes to try, the smallest first; by default all.
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
            say(f"{device_name(device)}: against the processor …")
            here, there = (functools.partial(_steps, device=place) for place in ("cpu", device))
            numbers["gpu"] = crossing(SYSTEMS[:sizes], here, there, say)
        found[device_name(device)] = Crossings(**numbers)
    lines = [
        f"{name}: iterative from {each.periodic} periodic or {each.free} isolated atoms on"
        + (f", GPU from {each.gpu} on" if name != "cpu" else "")
        for name, each in found.items()
    ]
    try:
        lines.append(f"kept in {keep(found)}, which can be deleted")
    except OSError as error:
        lines.append(f"not kept ({error}): set NEQUIPLR_CACHE to a writable directory")
    return "\n".join(lines)


def crossing(
    shapes: Iterable[tuple[int, int, int]],
    first: Callable[[tuple[int, int, int]], Callable[[], object]],
    second: Callable[[tuple[int, int, int]], Callable[[], object]],
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Number of atoms from which the second of two ways is faster; steps are timed in turn.

    Between two sizes it is their geometric mean; above the largest size it is not looked for.
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
    """Evaluations of rattled rock salt whose atoms move a little from one to the next."""
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
