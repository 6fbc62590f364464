"""The callable of the PythonForce: network and equilibration in torch, Coulomb in OpenMM."""

from __future__ import annotations

import math
import os
import threading
import uuid
import warnings
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch

from ..boundaries import whole_slab
from ..devices import resolve_device
from ..electrostatics import OutsideCharges
from ..electrostatics.splitting import FINEST, mesh_dtype
from ..errors import InputError, InstabilityError, NequIPLRError
from ..graph import AtomicGraph
from ..lattice import displacements
from ..model.building import GraphBuilder
from ..model.evaluation import Evaluation, Evaluator, Surroundings
from ..model.options import DTYPES
from ..pickling import reduction
from ..units import ANGSTROM_PER_NM, COULOMB_CONSTANT, EV_TO_KJ_PER_MOL
from ..whole import WholeMolecules
from .computation_settings import ComputationSettings, in_volts_per_angstrom
from .limits import ChargeLimits
from .pme import PointChargeCoulomb
from .serialization import pack, shared_embedded, unpack

#: Name of the force in the System.
FORCE_NAME = "NequIPLR"
#: Parameters of a Context that hold the components of a uniform field, V/nm.
FIELD_PARAMETERS = ("electric_field_x", "electric_field_y", "electric_field_z")

# Enough for a rejected Monte Carlo move to find the state before it.
_REMEMBERED = 3
_SOLVES_KEPT = 10000
# Positions this close (Å, modulo lattice vectors) are the same frame.
_SAME_POSITION = 1e-5

# OpenMM never frees what it unpickles. So many unpickled computations may be warm at a time.
_MOST_WARM = 16

_live: weakref.WeakValueDictionary[str, Computation] = weakref.WeakValueDictionary()
_warm: OrderedDict[str, None] = OrderedDict()


class Computation:
    """Maps an OpenMM State to energy and forces; the callable of a ``PythonForce``.

    It knows no Context: the result depends on positions and box alone (where charges are solved for
    iteratively, to within their tolerance), and any number of Contexts may share one instance
    (calls take turns; taking turns at every step costs iterative solves their good guesses). The
    last few results are remembered, which makes reports and rejected Monte Carlo moves free.

    A pickled computation carries the model with it, or the path of its file. Unpickled in the
    process where it still lives, it is the same object again; anywhere else it is built anew.

    Parameters
    ----------
    settings : ComputationSettings
    """

    def __init__(self, settings: ComputationSettings) -> None:
        self.settings = settings
        self._setup(uuid.uuid4().hex)

    def _setup(self, token: str, unpickled: bool = False) -> None:
        self._token, self._unpickled = token, unpickled
        self._lock = threading.RLock()
        self._evaluator: Evaluator | None = None
        self._graphs: GraphBuilder | None = None
        self._limits: ChargeLimits | None = None
        self._coulomb: PointChargeCoulomb | None = None
        self._outside: OutsideCharges | None = None
        self._whole = WholeMolecules()
        self._recent: deque[tuple[_Place, Evaluation]] = deque(maxlen=_REMEMBERED)
        self.evaluations = 0
        #: What an evaluation does when charges are far outside the training data: ``"stop"`` with
        #: an :class:`InstabilityError`, ``"warn"`` (once) or ``"ignore"``.
        self.on_unstable = "stop"
        self._warned = False
        #: Error of the last call that failed; OpenMM passes on no more than its message.
        self.failure: NequIPLRError | None = None
        #: Iterations for charges and adjoint charges, and residual (eV/e), of the last evaluations.
        self.solves: deque[tuple[int, int, float]] = deque(maxlen=_SOLVES_KEPT)
        _live[token] = self

    def _in_forked_child(self) -> None:
        """Leave behind what a thread of the parent may have been at work on."""
        self._lock, self._graphs, self._outside = threading.RLock(), None, None
        if self._evaluator is not None:
            self._evaluator.memory.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return reduction(pack(self._token, self.settings))

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return len(self.settings.symbols)

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy (kJ/mol) and forces (kJ/mol/nm, shape (N, 3)) at a State's positions and box.

        The State holds the particles that the force acts on, as a ``PythonForce`` passes it.
        """
        try:
            positions, cell = state_geometry(state, self.settings.boxed)
            result = self.evaluate(self.joined(positions, state), cell, self.field(state))
        except NequIPLRError as error:
            self.failure = error
            raise
        except KeyboardInterrupt:  # OpenMM would make an exception without message of it
            self.failure = NequIPLRError("interrupted during an evaluation")
            raise self.failure from None
        except Exception as error:  # only the message survives the way through OpenMM
            self.failure = NequIPLRError(f"{type(error).__name__}: {error}")
            raise self.failure from error
        forces = np.asarray(result.forces)
        if result.outside_forces is not None:
            forces = np.concatenate((forces, result.outside_forces))
        return result.energy * EV_TO_KJ_PER_MOL, forces * (EV_TO_KJ_PER_MOL * ANGSTROM_PER_NM)

    def geometry(self, state: openmm.State) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions and box vectors, Å, in a State of the whole System.

        Positions are those of the model's N atoms, and after them of the charges outside.
        """
        positions, cell = state_geometry(state, self.settings.boxed)
        if self.settings.particles is not None:
            positions = positions[list(self.settings.particles)]
        return self.joined(positions, state), cell

    def field(self, state: openmm.State) -> np.ndarray | None:
        """The uniform field of a State with parameters, shape (3,), V/Å; else that at the start."""
        if self.settings.electric_field is None:
            return None
        try:
            parameters = state.getParameters()
            values = [parameters[name] for name in FIELD_PARAMETERS]
        except (openmm.OpenMMException, KeyError):  # a State without, or the field is fixed
            return self.settings.field_at_start
        return in_volts_per_angstrom(values)

    def joined(self, positions: np.ndarray, state: openmm.State) -> np.ndarray:
        """Positions, those of the model's atoms at the images that it takes them at, Å."""
        settings = self.settings
        if not (settings.slab or settings.whole) or not np.isfinite(positions).all():
            return positions
        try:
            box = state.getPeriodicBoxVectors(asNumpy=True)._value * ANGSTROM_PER_NM
        except openmm.OpenMMException:  # the force is not periodic
            box = np.array(settings.whole)
        if settings.slab:
            return whole_slab(torch.from_numpy(positions), torch.from_numpy(box))[0].numpy()
        with self._lock:
            own = self._whole(positions[: self.num_atoms], box)
        return np.concatenate((own, positions[self.num_atoms :]))

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        field: np.ndarray | None = None,
    ) -> Evaluation:
        """Evaluate the model, or return the remembered result for exactly this geometry.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3) or (N + M, 3), Å
            Of the atoms, and after them of M charges outside, if there are some.
        cell : numpy.ndarray, shape (3, 3), Å, optional
            Rows are box vectors; needed when periodic.
        field : numpy.ndarray, shape (3,), V/Å, optional
            Of :meth:`field`; by default that of the settings.

        Returns
        -------
        Evaluation
            Energy (eV), forces (eV/Å), charges (e), dipole (e Å) and energies per part (eV).
        """
        with self._lock:
            place = _Place(positions, cell, self._field_or_first(field))
            for seen, result in self._recent:
                if place.same_surroundings(seen) and np.array_equal(positions, seen.positions):
                    return result
            graph = self._graph(positions, cell, place.field)
            surroundings = self._surroundings(positions, cell)
            result = self._ready()(
                graph, point_charge_coulomb=self._coulomb, surroundings=surroundings
            )
            self._check(result)
            self.evaluations += 1
            self.solves.append((*result.iterations, result.residual))
            self._recent.append((place.copied(), result))
            return result

    def _check(self, result: Evaluation) -> None:
        """See that a result is finite, and that its charges are near those of the training."""
        if result.forces is None or not np.isfinite(result.energy + result.forces.sum()):
            where = ""
            if result.forces is not None:
                bad = np.flatnonzero(~np.isfinite(result.forces).all(axis=1))
                where = (
                    f" on {len(bad)} atoms (first: atom {self._name(bad[0])})" if len(bad) else ""
                )
            raise InputError(
                "positions: expected a geometry that the model can evaluate, got a non-finite "
                f"energy or force{where}; atoms on top of one another are the usual cause"
            )
        limits = self.charge_limits
        if limits is None or self.on_unstable == "ignore":
            return
        trouble = limits.trouble(result.charges, self.settings.atoms)
        if trouble is not None and self.on_unstable == "stop":
            raise InstabilityError(
                f"unstable: {trouble}; the model does not know this structure (to go on all the "
                'same, set get_computation(system).on_unstable = "warn")'
            )
        if trouble is not None and not self._warned:
            self._warned = True
            warnings.warn(trouble, RuntimeWarning, stacklevel=2)

    @property
    def charge_limits(self) -> ChargeLimits | None:
        """Charges that the training of the model covers, if its file states them."""
        self._ready()
        return self._limits

    def strongest(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        field: np.ndarray | None = None,
    ) -> str:
        """Size and atom of the largest force, in words; arguments of :meth:`evaluate`."""
        forces = self.evaluate(positions, cell, field).forces
        sizes = np.linalg.norm(np.asarray(forces), axis=1)
        worst = int(sizes.argmax())
        return f"{sizes[worst]:.3g} eV/Å on atom {self._name(worst)}"

    def _name(self, index: int) -> str:
        """Number of one of the model's atoms in the System, and its element."""
        chosen, symbols = self.settings.atoms, self.settings.symbols
        return f"{index if chosen is None else chosen[index]} ({symbols[index]})"

    def charges(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        field: np.ndarray | None = None,
    ) -> np.ndarray:
        """Charges of a frame, shape (N,), e; images of atoms in other boxes are the same atoms.

        Costs nothing right after an evaluation of the same frame, else the first half of one.
        """
        with self._lock:
            place = _Place(positions, cell, self._field_or_first(field))
            for seen, result in reversed(self._recent):
                if place.same_surroundings(seen) and _same_frame(positions, seen.positions, cell):
                    return result.charges
            graph = self._graph(positions, cell, place.field)
            return self._ready().charges(graph, self._surroundings(positions, cell))[0]

    def _field_or_first(self, field: np.ndarray | None) -> np.ndarray | None:
        return self.settings.field_at_start if field is None else field

    def _ready(self) -> Evaluator:
        """Load the model on first use."""
        if self._unpickled:
            self._stay_warm()
        if self._evaluator is None:
            settings = self.settings
            device = resolve_device(settings.device)
            # cast already, and shared: the evaluator changes nothing
            model = shared_embedded(settings.model, DTYPES[settings.precision], device)
            self._limits = ChargeLimits.of(model.metadata, settings.symbols)
            if settings.long_range == "openmm":
                self._coulomb = settings.delegated_sum()
            dtype = DTYPES[settings.precision]
            self._evaluator = Evaluator(model, dtype, device, settings.solver_options)
        return self._evaluator

    def _stay_warm(self) -> None:
        """Keep what is heavy, and let the unpickled computation go cold that waited longest."""
        _warm[self._token] = None
        _warm.move_to_end(self._token)
        while len(_warm) > _MOST_WARM:
            other = _live.get(_warm.popitem(last=False)[0])
            if other is not None and other._lock.acquire(blocking=False):
                try:
                    other._evaluator = other._graphs = other._coulomb = other._outside = None
                    other._recent.clear()
                finally:
                    other._lock.release()

    def _graph(
        self, positions: np.ndarray, cell: np.ndarray | None, field: np.ndarray | None = None
    ) -> AtomicGraph:
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if bad.size:
            chosen = self.settings.particles
            first = bad[0] if chosen is None else chosen[bad[0]]
            raise InputError(
                f"positions: expected finite numbers, got NaN or infinity for {bad.size} of "
                f"{len(positions)} atoms (first: atom {first}); the simulation has become "
                "unstable: try a shorter time step, or minimise the structure first"
            )
        if self._graphs is None:
            settings, evaluator = self.settings, self._ready()
            model = evaluator.model
            self._graphs = GraphBuilder(
                model.config,
                settings.symbols,
                settings.pbc,
                settings.total_charge,
                skin=settings.skin,
                device=model.device,
                lattice_sum=not evaluator.iterative(self.num_atoms, settings.periodic),
                charge_groups=settings.charge_groups,
                group_charges=settings.group_charges,
            )
        own = positions[: self.num_atoms]
        return self._graphs(own, cell if self.settings.periodic else None, field)

    def _surroundings(self, positions: np.ndarray, cell: np.ndarray | None) -> Surroundings | None:
        """The charges outside, if there are some."""
        settings = self.settings
        if settings.outside_charges is None:
            return None
        model, accuracy = self._ready().model, max(settings.tolerance, FINEST)
        if self._outside is None:
            self._outside = OutsideCharges(
                torch.tensor(settings.outside_charges, dtype=torch.float64, device=model.device),
                settings.outside_width,
                math.sqrt(model.config.coulomb_constant * COULOMB_CONSTANT),
                accuracy,
                mesh_dtype(DTYPES[settings.precision], accuracy),
            )
        sites = torch.from_numpy(np.array(positions[self.num_atoms :], dtype=np.float64))
        box = None if cell is None else torch.from_numpy(np.array(cell)).to(model.device)
        return Surroundings(self._outside, sites.to(model.device), box)


def _in_forked_child() -> None:
    for computation in list(_live.values()):
        computation._in_forked_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def state_geometry(state: openmm.State, periodic: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions, shape (N, 3), and box vectors, shape (3, 3) or ``None``, of a State in Å."""
    positions = state.getPositions(asNumpy=True)._value * ANGSTROM_PER_NM
    if not periodic:
        return positions, None
    return positions, state.getPeriodicBoxVectors(asNumpy=True)._value * ANGSTROM_PER_NM


def restore_computation(payload: dict[str, Any]) -> Computation:
    """Unpickle: the object itself where it lives, a new one elsewhere.

    Raises
    ------
    InputError
        If the payload was written by a newer version of the package.
    """
    values = unpack(payload, ComputationSettings)
    return _restore(payload["token"], ComputationSettings.of_plain(values))


def _restore(token: str, settings: ComputationSettings) -> Computation:
    """As version 0.1.0 pickled it."""
    computation = _live.get(token)
    if computation is None:
        computation = Computation.__new__(Computation)
        computation.settings = settings
        computation._setup(token, unpickled=True)
    return computation


@dataclass(frozen=True)
class _Place:
    """What an evaluation depends on: positions, cell and field."""

    positions: np.ndarray
    cell: np.ndarray | None
    field: np.ndarray | None

    def same_surroundings(self, other: _Place) -> bool:
        """Whether cell and field are the same."""
        return _equal(self.cell, other.cell) and _equal(self.field, other.field)

    def copied(self) -> _Place:
        """The same with its own float64 arrays."""
        cell = None if self.cell is None else np.array(self.cell, dtype=np.float64)
        field = None if self.field is None else np.array(self.field, dtype=np.float64)
        return _Place(np.array(self.positions, dtype=np.float64), cell, field)


def _equal(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _same_frame(positions: np.ndarray, other: np.ndarray, cell: np.ndarray | None) -> bool:
    moved = positions - other if cell is None else displacements(positions, other, cell)[0]
    return bool((np.abs(moved) < _SAME_POSITION).all())
