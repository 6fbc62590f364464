"""Energy minimisation before a run."""

from __future__ import annotations

from collections.abc import Callable

import openmm
from openmm import app

from ..errors import Interrupted
from .computation import Computation
from .limits import HalfBonds, deepest_fall
from .signals import StopRequest


class StoppingMinimization(openmm.MinimizationReporter):
    """Stops a minimisation when a signal requests it."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self.stop = stop

    def report(self, iteration: int, x: object, grad: object, args: object) -> bool:
        """Whether to stop."""
        return bool(self.stop)


def relax(
    simulation: app.Simulation,
    computation: Computation,
    stop: StopRequest,
    say: Callable[[str], None],
) -> str | None:
    """Minimise the energy; returns a warning if its decrease indicates a hole in the potential.

    Otherwise ``None`` is returned, also if atoms of the initial structure overlap.

    Raises
    ------
    Interrupted
        If a signal stopped the minimisation.
    """

    def potential() -> float:
        state = simulation.context.getState(positions=True)
        return computation.evaluate(*computation.geometry(state)).energy

    action, computation.on_unstable = computation.on_unstable, "ignore"
    state = simulation.context.getState(positions=True)
    bonds = HalfBonds(computation.settings.symbols)
    overlapping = bonds.trouble(*computation.geometry(state)) is not None
    before = potential()
    simulation.minimizeEnergy(maxIterations=500, reporter=StoppingMinimization(stop))
    fall = before - potential()
    computation.on_unstable = action
    if stop:
        raise Interrupted(f"{stop.name} while minimising; nothing was written", stop.number)
    say(f"minimised: {before:.4f} eV -> {before - fall:.4f} eV")
    allowed = deepest_fall(computation.num_atoms, minimisation=True)
    if fall <= allowed or overlapping:
        return None
    return (
        f"unstable: the minimisation lowered the energy by {fall:.4g} eV (allowed: {allowed:.4g} "
        "eV): the model has a hole there"
    )
