"""The minimisation before a run."""

from __future__ import annotations

from collections.abc import Callable

import openmm
from openmm import app

from ..errors import Interrupted
from .computation import Computation
from .limits import HalfBonds, deepest_fall
from .signals import StopRequest


class StoppingMinimization(openmm.MinimizationReporter):
    """Ends a minimisation when a signal asks for it."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self.stop = stop

    def report(self, iteration: int, x: object, grad: object, args: object) -> bool:
        """Whether to end."""
        return bool(self.stop)


def relax(
    simulation: app.Simulation,
    computation: Computation,
    stop: StopRequest,
    say: Callable[[str], None],
) -> str | None:
    """Minimise the energy; the text of a warning if it fell too deep, which points to a hole.

    Structures in which atoms overlap may release any energy.

    Raises
    ------
    Interrupted
        If a signal ended it.
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
