"""Coulomb energy and forces of point charges, computed in a separate OpenMM Context."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import numpy as np
import openmm

from ..errors import BackendError, BoxError, describe, notify
from ..units import ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
from .box import ReducedBox, compact_box
from .charges import set_charges
from .platforms import coulomb_platform
from .pme_plan import (
    DEFAULT_TOLERANCE,
    ROUNDING,
    SMALLEST_CUTOFF,
    PMEPlan,
    check_tolerance,
    plan_pme,
    plan_smooth,
)

__all__ = [
    "DEFAULT_TOLERANCE",
    "SMALLEST_CUTOFF",
    "PMEPlan",
    "PointChargeCoulomb",
    "plan_pme",
    "plan_smooth",
]

_MAX_CONTEXTS = 3
# Up to this number of atoms a molecule is summed faster without the CPU platform's threads.
_SMALL = 100
# Beyond this distance, Å, single precision does not resolve a ten-thousandth of an Å.
_FAR = 1000.0


class PointChargeCoulomb:
    """Energy and forces of point charges, summed by a NonbondedForce in a separate Context.

    In a periodic box of any shape the method is smooth particle mesh Ewald (SPME; Essmann et al.,
    J. Chem. Phys. 103, 8577 (1995)) with tin-foil boundary conditions and a uniform neutralising
    background. Otherwise it is the direct sum over all pairs. The mesh parameters depend only on
    the box, so that the energy is a function of the state and not of its history, also with a
    barostat.

    Instances can be pickled. Contexts are created on first use.

    Parameters
    ----------
    num_atoms : int
    periodic : bool
    tolerance : float
        Relative rms error of the forces to aim at.
    precision : {"single", "double"}
    platform : str, optional
        OpenMM platform of the sum, see :func:`coulomb_platform`.
    device : str, optional
        torch device of the network. If its platform cannot create a Context, the CPU is used, with
        a notice.

    Raises
    ------
    InputError
        If the tolerance is invalid.
    BackendError
        If the platform does not exist.
    """

    def __init__(
        self,
        num_atoms: int,
        periodic: bool,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        precision: str = "single",
        platform: str | None = None,
        device: str | None = None,
    ) -> None:
        check_tolerance(tolerance)
        self.num_atoms = num_atoms
        self.periodic = periodic
        self.tolerance = tolerance
        small = not periodic and num_atoms <= _SMALL
        wanted = "double" if platform is None and small else precision
        place = None if platform is None and small else device
        self.platform, self._properties = coulomb_platform(platform, wanted, place)
        self._spare = coulomb_platform(None, wanted) if platform is None else None
        self._reset()

    def _reset(self) -> None:
        self._contexts: OrderedDict[tuple[PMEPlan | None, bool, str], _InnerContext] = OrderedDict()
        self._process = os.getpid()
        self._cell: np.ndarray | None = None
        self._box: ReducedBox | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_contexts", "_cell", "_box"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __call__(
        self, positions: np.ndarray, cell: np.ndarray | None, charges: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Compute the Coulomb energy and forces of point charges.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3), Å
        cell : numpy.ndarray, shape (3, 3), Å, or None
            Rows are lattice vectors; required for periodic systems.
        charges : numpy.ndarray, shape (N,), e

        Returns
        -------
        energy : float, eV
        forces : numpy.ndarray, shape (N, 3), eV/Å

        Raises
        ------
        BoxError
            If the box is missing, degenerate or too small.
        """
        if not self.periodic:
            if float(np.abs(positions).max(initial=0.0)) > _FAR:
                positions = positions - positions.mean(axis=0)
            apart = float(np.abs(positions).max(initial=0.0)) > _FAR
            return self._context(None, None, exact=apart).evaluate(positions, None, charges)
        if cell is None:
            raise BoxError(describe("cell", None, "three vectors, for a periodic Coulomb sum"))
        box, plan = self._reduced(cell), self.plan(cell)
        energy, forces = self._context(plan, box).evaluate(
            _placed(positions, box), box.vectors, charges
        )
        return energy, forces @ box.rotation

    def plan(self, cell: np.ndarray) -> PMEPlan:
        """Ewald splitting, cutoff and mesh for a cell, shape (3, 3), Å."""
        return plan_pme(self._reduced(cell), self.tolerance)

    def smooth(
        self, positions: np.ndarray, cell: np.ndarray, charges: np.ndarray, eta: float
    ) -> tuple[float, np.ndarray]:
        """The reciprocal-space part: the periodic sum without pairs k_e q_i q_j erfc(r/√2η)/r.

        Parameters
        ----------
        positions, cell, charges : numpy.ndarray
            As for a call.
        eta : float, Å
            Ewald width; α = 1/(√2 η).

        Returns
        -------
        energy : float, eV
        forces : numpy.ndarray, shape (N, 3), eV/Å
        """
        box = self._reduced(cell)
        plan = plan_smooth(box, eta, self.tolerance)
        energy, forces = self._context(plan, box, direct_space=False).evaluate(
            _placed(positions, box), box.vectors, charges
        )
        return energy, forces @ box.rotation

    def _reduced(self, cell: np.ndarray) -> ReducedBox:
        if self._box is None or self._cell is None or not np.array_equal(cell, self._cell):
            self._cell, self._box = np.array(cell, dtype=np.float64), compact_box(cell)
        return self._box

    def _context(
        self,
        plan: PMEPlan | None,
        box: ReducedBox | None,
        direct_space: bool = True,
        exact: bool = False,
    ) -> _InnerContext:
        """The Context of a plan; the most recently used ones are cached.

        An ``exact`` Context stores positions in double precision.
        """
        if self._process != os.getpid():  # after a fork the parent's threads are missing
            for inner in self._contexts.values():
                inner.abandon()
            self._reset()
        if _inherited:
            raise BackendError(
                "process: expected one started by 'spawn' or 'forkserver', or a fork made before "
                "the first evaluation, got a fork of a process in which OpenMM has summed Coulomb "
                "energies: OpenMM may wait for ever for the threads of the parent here "
                "(long_range='graph' does without OpenMM's sum)"
            )
        platform, properties = self.platform, self._properties
        if exact and platform != "Reference":
            platform, properties = coulomb_platform(None, "double")
        key = (plan, direct_space, platform)
        if key not in self._contexts:
            while len(self._contexts) >= _MAX_CONTEXTS:
                self._contexts.popitem(last=False)
            arguments = self.num_atoms, plan, box, platform, properties, direct_space
            try:
                self._contexts[key] = _InnerContext(*arguments)
            except openmm.OpenMMException as error:
                if self._spare is None or platform == self._spare[0]:
                    raise
                self.platform, self._properties = self._spare
                notify(f"coulomb_platform: {self.platform}, because {platform} fails ({error})")
                return self._context(plan, box, direct_space, exact)
        self._contexts.move_to_end(key)
        return self._contexts[key]


def _placed(positions: np.ndarray, box: ReducedBox) -> np.ndarray:
    """Positions, shape (N, 3), Å, in the frame of a box; wrapped if far from the origin."""
    turned = positions @ box.rotation.T
    if float(np.abs(turned).max(initial=0.0)) > _FAR:
        turned = turned - np.floor(turned @ np.linalg.inv(box.vectors)) @ box.vectors
    return turned


# Whether this process, or one that it was forked from, has created an inner Context.
_made = _inherited = False


def _after_fork() -> None:
    global _inherited
    _inherited = _inherited or _made


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _InnerContext:
    """A Context that contains only point charges."""

    def __init__(
        self,
        num_atoms: int,
        plan: PMEPlan | None,
        box: ReducedBox | None,
        platform: str,
        properties: dict[str, str],
        direct_space: bool,
    ) -> None:
        global _made
        _made = True
        system = openmm.System()
        force = openmm.NonbondedForce()
        for _ in range(num_atoms):
            system.addParticle(1.0)
            # GPU platforms omit Coulomb permanently if all charges are zero here
            force.addParticle(1.0, 1.0, 0.0)
        force.setUseDispersionCorrection(False)
        if plan is None or box is None:
            force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
        else:
            system.setDefaultPeriodicBoxVectors(*(box.vectors / ANGSTROM_PER_NM))
            force.setNonbondedMethod(openmm.NonbondedForce.PME)
            force.setCutoffDistance(plan.cutoff * (1.0 - 10.0 * ROUNDING) / ANGSTROM_PER_NM)
            force.setPMEParameters(plan.alpha * ANGSTROM_PER_NM, *plan.grid)
            force.setIncludeDirectSpace(direct_space)
        system.addForce(force)
        self._force = force
        self._box = None if box is None else box.vectors
        self._charges = np.ones(num_atoms)
        self._integrator = openmm.VerletIntegrator(0.001)
        self._context = openmm.Context(
            system, self._integrator, openmm.Platform.getPlatform(platform), properties
        )

    def abandon(self) -> None:
        """Never free the Context: in a forked child this would wait for the parent's threads."""
        self._context.thisown = self._integrator.thisown = False

    def evaluate(
        self, positions: np.ndarray, box: np.ndarray | None, charges: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Energy (eV) and forces (eV/Å) at positions (Å), box vectors (Å) and charges (e)."""
        if box is not None and (self._box is None or not np.array_equal(box, self._box)):
            self._context.setPeriodicBoxVectors(*(box / ANGSTROM_PER_NM))
            self._box = box.copy()
        self._set_charges(charges)
        self._context.setPositions(np.ascontiguousarray(positions) / ANGSTROM_PER_NM)
        state = self._context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
        forces = state.getForces(asNumpy=True)._value
        return energy, forces / (EV_TO_KJ_PER_MOL * ANGSTROM_PER_NM)

    def _set_charges(self, charges: np.ndarray) -> None:
        if np.array_equal(charges, self._charges):
            return
        set_charges(self._force, charges)
        self._force.updateParametersInContext(self._context)
        self._charges = charges.copy()
