"""The callable of a PythonForce: network and charge equilibration in torch, Coulomb in OpenMM."""

from __future__ import annotations

import math
import os
import threading
import uuid
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openmm
import torch

from ..costs import default_device
from ..devices import resolve_device
from ..electrostatics import OutsideCharges
from ..electrostatics.splitting import FINEST, mesh_dtype
from ..errors import InputError, InstabilityError, NequIPLRError, describe, notify
from ..graph import AtomicGraph
from ..model.building import GraphBuilder
from ..model.evaluation import Evaluation, Evaluator, Surroundings
from ..model.observables import Observable, Observation
from ..model.options import DTYPES
from ..pickling import reduction
from ..total_charge import check_trained
from ..units import ANGSTROM_PER_NM, COULOMB_CONSTANT, EV_TO_KJ_PER_MOL
from .computation_settings import ComputationSettings, Conditions
from .limits import ChargeLimits
from .places import Place, Watched
from .pme import PointChargeCoulomb
from .serialization import pack, shared_embedded
from .states import StateReader, state_geometry

#: Name of the force in the System.
FORCE_NAME = "NequIPLR"
# Number of results kept: enough to reuse the previous state after a rejected Monte Carlo move.
_REMEMBERED = 3
_SOLVES_KEPT = 10000
# Relative change of the height of a slab's cell that counts as none.
_SAME_HEIGHT = 1e-6

# OpenMM never frees what it unpickles; at most so many unpickled computations keep their model.
_MOST_WARM = 16

_live: weakref.WeakValueDictionary[str, Computation] = weakref.WeakValueDictionary()
_warm: OrderedDict[str, None] = OrderedDict()


class Computation(StateReader):
    """Maps an OpenMM State to energy and forces; the callable of a ``PythonForce``.

    The result depends only on positions, box and :class:`.Conditions`; iterative charge solvers
    reproduce it to within their tolerance. Any number of Contexts may share one instance. Their
    calls run one after another; Contexts that alternate at every step deprive iterative solvers of
    good initial guesses. The last few results are cached, so reports and rejected Monte Carlo moves
    cost nothing.

    A pickled computation contains the model or the path of its file. Unpickling returns the same
    object in a process where it still exists, and a new one elsewhere.

    Parameters
    ----------
    settings : ComputationSettings
    """

    def __init__(
        self, settings: ComputationSettings, token: str | None = None, unpickled: bool = False
    ) -> None:
        super().__init__(settings)
        self.token, self._unpickled = token or uuid.uuid4().hex, unpickled
        self._evaluator: Evaluator | None = None
        self._graphs: GraphBuilder | None = None
        self._limits: ChargeLimits | None = None
        self._coulomb: PointChargeCoulomb | None = None
        self._outside: OutsideCharges | None = None
        self._recent: deque[tuple[Place, Evaluation]] = deque(maxlen=_REMEMBERED)
        self._watched, self._uncalled = Watched(_REMEMBERED), _REMEMBERED
        self.evaluations = 0
        #: Action when charges are far outside the range of the training data: ``"stop"`` with an
        #: :class:`InstabilityError`, ``"warn"`` (once) or ``"ignore"``.
        self.on_unstable = "stop"
        self._warned = self._charge_checked = self._height_told = False
        self._height: float | None = None
        # whether the graph of the last evaluation has the positions that it was given
        self._unmoved = False
        #: Error of the last call that failed; OpenMM passes on only its message.
        self.failure: NequIPLRError | None = None
        #: Iterations for charges and adjoint charges, and residual (eV/e), of the last evaluations.
        self.solves: deque[tuple[int, int, float]] = deque(maxlen=_SOLVES_KEPT)
        _live[self.token] = self

    def _in_forked_child(self) -> None:
        """Discard objects that a thread of the parent may have been using."""
        self._lock, self._graphs, self._outside = threading.RLock(), None, None
        if self._evaluator is not None:
            self._evaluator.memory.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return reduction(pack(self.token, self.settings))

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy (kJ/mol) and forces (kJ/mol/nm, shape (N, 3)) at a State's positions and box.

        The State contains only the particles that the ``PythonForce`` acts on.
        """
        with self.telling():
            positions, cell = state_geometry(state, self.settings.boxed)
            parameters = self.parameters(state)
            conditions = self.settings.conditions(parameters)
            result = self.evaluate(self.joined(positions, state), cell, conditions)
            self._uncalled = 0
        forces = np.asarray(result.forces)
        if result.outside_forces is not None:
            forces = np.concatenate((forces, result.outside_forces))
        scale = parameters.get("model_scale", 1.0) * EV_TO_KJ_PER_MOL
        return result.energy * scale, forces * (scale * ANGSTROM_PER_NM)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Turn every exception into an error with a message, as OpenMM passes on nothing else."""
        try:
            yield
        except NequIPLRError as error:
            self.failure = error
            raise
        except KeyboardInterrupt:  # OpenMM would raise an exception without a message
            self.failure = NequIPLRError("interrupted during an evaluation")
            raise self.failure from None
        except Exception as error:
            self.failure = NequIPLRError(f"{type(error).__name__}: {error}")
            raise self.failure from error

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        conditions: Conditions | None = None,
    ) -> Evaluation:
        """Evaluate the model, or return the cached result for exactly this geometry.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3) or (N + M, 3), Å
            Of the N atoms, followed by those of M external charges, if any.
        cell : numpy.ndarray, shape (3, 3), Å, optional
            Rows are box vectors; required for periodic systems.
        conditions : Conditions, optional
            By default those of the settings.

        Returns
        -------
        Evaluation
            Energy (eV), forces (eV/Å), charges (e), dipole (e Å) and contributions to the energy
            (eV).
        """
        with self._lock:
            place = self._place(positions, cell, conditions)
            for seen, result in self._recent:
                if place.same(seen):
                    return result
            observables = self._watched.current()
            again = None if observables else self._again(place)
            if again is not None:
                result = again
            else:
                graph = self._graph(place)
                result = self._ready()(
                    graph,
                    point_charge_coulomb=self._coulomb,
                    observables=observables,
                    coulomb_scale=place.conditions.coulomb_scale,
                    surroundings=self._surroundings(place),
                )
                if self.replays:
                    own = graph.on_cpu.positions.numpy()
                    self._unmoved = np.array_equal(own, place.positions)
            self._check(result)
            self.evaluations += 1
            self.solves.append((*result.iterations, result.residual))
            place = place.copied()
            self._recent.append((place, result))
            self._watched.keep(place, dict(zip(observables, result.observed, strict=True)))
            return result

    def _again(self, place: Place) -> Evaluation | None:
        """Evaluation at a place like the last one by its recorded kernels, if there are any."""
        if not (self._unmoved and self._recent and place.like(self._recent[-1][0])):
            return None
        return self._ready().again(place.positions, place.conditions.coulomb_scale)

    def observe(
        self,
        observable: Observable,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        conditions: Conditions | None = None,
    ) -> Observation:
        """An observable of the charges with its gradient; other arguments as in :meth:`evaluate`.

        If the model's force is evaluated at the same positions, the observable is part of that
        evaluation, at the cost of one more linear solve and backward pass. Alone it costs half an
        evaluation.
        """
        with self._lock:
            place = self._place(positions, cell, conditions)
            self._watched.ask(observable)
            found = self._watched.find(place, observable)
            known = any(place.same(seen) for seen, _ in self._recent)
            if found is None and not known and self._uncalled < _REMEMBERED:
                self._uncalled += 1  # its force is likely to be next
                self.evaluate(positions, cell, conditions)
                found = self._watched.find(place, observable)
            if found is None:
                observables = self._watched.current()
                graph, outside = self._graph(place), self._surroundings(place)
                values = self._ready().observe(graph, observables, outside)
                together = dict(zip(observables, values, strict=True))
                self._watched.keep(place.copied(), together)
                found = together[observable]
            return found

    def _check(self, result: Evaluation) -> None:
        """Check that a result is finite, and its charges are near those of the training data."""
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
    def replays(self) -> int:
        """Number of evaluations that repeated recorded kernels of a GPU."""
        return self._ready().replays.count

    @property
    def has_response(self) -> bool:
        """Whether the model has charges that respond to the positions of the atoms."""
        return self._ready().model.config.has_coulomb_sum(self.settings.periodic)

    @property
    def charge_limits(self) -> ChargeLimits | None:
        """Limits of the charges, from the training data, if the model file specifies them."""
        self._ready()
        return self._limits

    def strongest(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        conditions: Conditions | None = None,
    ) -> str:
        """Magnitude and atom of the largest force, as text; arguments as in :meth:`evaluate`."""
        forces = self.evaluate(positions, cell, conditions).forces
        sizes = np.linalg.norm(np.asarray(forces), axis=1)
        worst = int(sizes.argmax())
        return f"{sizes[worst]:.3g} eV/Å on atom {self._name(worst)}"

    def _name(self, index: int) -> str:
        """Index in the System, element and replica of one of the model's atoms, as text."""
        chosen, symbols, copies = self.settings.atoms, self.settings.symbols, self.settings.replicas
        where = f", replica {index * copies // len(symbols)}" if copies > 1 else ""
        return f"{index if chosen is None else chosen[index]} ({symbols[index]}{where})"

    def charges(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        conditions: Conditions | None = None,
    ) -> np.ndarray:
        """Charges of a frame, shape (N,), e; lattice translations of atoms do not matter.

        Right after an evaluation of the frame they cost nothing, otherwise half an evaluation.
        """
        with self._lock:
            place = self._place(positions, cell, conditions)
            for seen, result in reversed(self._recent):
                if place.same_frame(seen):
                    return result.charges
            found = self._ready().charges(self._graph(place), self._surroundings(place))
            return found[0]

    def _place(
        self, positions: np.ndarray, cell: np.ndarray | None, conditions: Conditions | None
    ) -> Place:
        return Place(positions, cell, conditions or self.settings.conditions({}))

    def _ready(self) -> Evaluator:
        """Load the model on first use."""
        if self._unpickled:
            self._stay_warm()
        if self._evaluator is None:
            settings = self.settings
            device = resolve_device(default_device(self.num_atoms, settings.device))
            # already cast, and shared: the evaluator does not modify the model
            model = shared_embedded(settings.model, DTYPES[settings.precision], device)
            self._limits = ChargeLimits.of(model.metadata, settings.symbols)
            if settings.long_range == "openmm":
                self._coulomb = settings.delegated_sum(device)
            dtype = DTYPES[settings.precision]
            self._evaluator = Evaluator(model, dtype, device, settings.solver_options)
        return self._evaluator

    def _stay_warm(self) -> None:
        """Keep the model in memory; the least recently used unpickled computation drops its own."""
        _warm[self.token] = None
        _warm.move_to_end(self.token)
        while len(_warm) > _MOST_WARM:
            other = _live.get(_warm.popitem(last=False)[0])
            if other is not None and other._lock.acquire(blocking=False):
                try:
                    other._evaluator = other._graphs = other._coulomb = other._outside = None
                    other._recent.clear()
                finally:
                    other._lock.release()

    def _graph(self, place: Place) -> AtomicGraph:
        positions, count = place.positions, self.num_atoms + len(self.settings.outside or ())
        if len(positions) != count:
            expected = (
                f"the {count} particles of the topology (create_force(…, atoms=range({count})) "
                "leaves others out, such as virtual sites)"
            )
            raise InputError(describe("system", f"{len(positions)} particles", expected))
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
                lattice_sum=settings.replicas > 1
                or not evaluator.iterative(self.num_atoms, settings.periodic),
                conditions=settings.charge_conditions,
                replicas=settings.replicas,
            )
        own, cell = positions[: self.num_atoms], place.cell if self.settings.periodic else None
        if self.settings.slab and cell is not None:
            self._watch_height(float(cell[2, 2]))
        given = place.conditions
        charge = None if given.total_charge == self.settings.total_charge else given.total_charge
        if charge is not None and not self._charge_checked:
            self._charge_checked = True
            check_trained(self._ready().model.metadata, charge)
        return self._graphs(own, cell, given.field, given.voltage, charge)

    def _watch_height(self, height: float) -> None:
        """Warn once if the height of the cell of a slab, Å, changes."""
        if self._height is None:
            self._height = height
        elif not self._height_told and abs(height - self._height) > _SAME_HEIGHT * height:
            self._height_told = True
            notify(
                f"slab: the height of its cell has changed from {self._height:g} to {height:g} Å; "
                "barostats may scale the cell of a slab in the plane only, as its vacuum has no "
                "pressure (MonteCarloAnisotropicBarostat with scaleZ=False)"
            )

    def outside_columns(
        self, positions: np.ndarray, cell: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Potential, shape (N,), V, and field, shape (N, 3), V/Å, of the external charges."""
        with self._lock, torch.enable_grad():
            place = self._place(positions, cell, None)
            surroundings, graph = self._surroundings(place), self._graph(place)
            assert surroundings is not None
            points = graph.positions.clone().requires_grad_()
            box = graph.cell[0] if graph.periodic[0] else surroundings.cell
            widths = self._ready().model.widths[graph.types]
            sites = surroundings.positions
            potential = surroundings.charges(points, widths, sites, box)
            (gradient,) = torch.autograd.grad(potential.sum(), points)
        return potential.detach().cpu().numpy(), -gradient.cpu().numpy()

    def _surroundings(self, place: Place) -> Surroundings | None:
        """The external charges, or ``None``."""
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
        sites = torch.from_numpy(np.array(place.positions[self.num_atoms :], dtype=np.float64))
        box = (
            None if place.cell is None else torch.from_numpy(np.array(place.cell)).to(model.device)
        )
        return Surroundings(self._outside, sites.to(model.device), box)


def _in_forked_child() -> None:
    for computation in list(_live.values()):
        computation._in_forked_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def restored(token: str, settings: ComputationSettings) -> Computation:
    """The computation of a token if it exists in this process, otherwise a new one."""
    return _live.get(token) or Computation(settings, token, unpickled=True)


#: Name of the function in pickles of version 0.1.0.
_restore = restored
