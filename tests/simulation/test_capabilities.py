"""The table of capabilities in the documentation says what the code accepts and refuses."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
import pytest
import torch

from openmm_nequiplr import (
    CommitteeReporter,
    NequIPLRCalculator,
    create_system,
    export_torch_force,
    simulation,
)
from openmm_nequiplr.electrostatics import OutsideCharges
from openmm_nequiplr.errors import NequIPLRError
from openmm_nequiplr.model import Evaluator, GroupCharge, Surroundings
from openmm_nequiplr.simulation import create_force, current_evaluation, from_atoms
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .conformance import ELECTRODES
from .twins import Frozen, evaluate_eagerly, missing_backend

if TYPE_CHECKING:
    from ase import Atoms

DOCS = Path(__file__).parents[2] / "docs"
if str(DOCS) not in sys.path:
    sys.path.insert(0, str(DOCS))
from capabilities import DOORS, FEATURES  # noqa: E402

#: What a refusal looks like. Anything else is a fault.
REFUSALS = (NequIPLRError, NotImplementedError, AttributeError)
BACKENDS = {"python": "python", "torch": "torch"}
REFERENCE = openmm.Platform.getPlatform("Reference")


class Refused(NotImplementedError):
    """The interface has no such option."""


def system_of(door: str, model: Any, atoms: Atoms, charge: float, **options: Any) -> openmm.System:
    topology = from_atoms(atoms).topology
    if door == "openmmml":
        potential = pytest.importorskip("openmmml").MLPotential("nequiplr", modelPath=model)
        return potential.createSystem(topology, totalCharge=charge, **options)
    return create_system(topology, model, total_charge=charge, backend=BACKENDS[door], **options)


def context_of(system: openmm.System, positions: np.ndarray) -> openmm.Context:
    context = openmm.Context(system, openmm.VerletIntegrator(0.0005), REFERENCE)
    context.setPositions(positions)
    return context


@functools.cache
def exported(model: Any, frozen: Frozen, charge: float) -> bytes:
    """A graph without options as a file; equal calls share one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        export_torch_force(model, from_atoms(frozen.atoms).topology, path, total_charge=charge)
        return path.read_bytes()


def energy(
    door: str, model: Any, atoms: Atoms, charge: float = 0.0, folder: Path | None = None, **options
) -> float:
    """Energy through one of the doors, eV."""
    if door == "ase":
        atoms = atoms.copy()
        atoms.info["total_charge"] = charge
        atoms.calc = NequIPLRCalculator(model, **options)
        return atoms.get_potential_energy()
    if door == "evaluator":
        names = ("electric_field", "charge_groups", "group_charges", *ELECTRODES)
        given = {name: options.pop(name) for name in names if name in options}
        if "precision" in options:
            options = {"dtype": getattr(torch, {"single": "float32"}[options["precision"]])}
        evaluator = Evaluator(copy.deepcopy(model), **options)
        cell = atoms.cell.array if atoms.pbc.any() else None
        graph = model.build_graph(atoms.numbers, atoms.positions, cell, atoms.pbc, charge, **given)
        return evaluator(graph).energy
    start = from_atoms(atoms)
    if door == "export":
        path = folder / "model.pt"
        if options or isinstance(model, list):
            export_torch_force(model, start.topology, path, total_charge=charge, **options)
        else:
            path.write_bytes(exported(model, Frozen(atoms), charge))
        box = None if start.box is None else torch.from_numpy(start.box)
        found = torch.jit.load(str(path))(torch.from_numpy(start.positions), box)
        return float(found[0]) / EV_TO_KJ_PER_MOL
    context = context_of(system_of(door, model, atoms, charge, **options), start.positions)
    return context.getState(energy=True).getPotentialEnergy()._value / EV_TO_KJ_PER_MOL


class Trial:
    """Tries features through a door; each method is one row of the table."""

    def __init__(self, door: str, request: pytest.FixtureRequest, folder: Path) -> None:
        self.door, self.folder = door, folder
        self.fixture = request.getfixturevalue

    def same(
        self, model: Any, atoms: Atoms, charge: float = 0.0, error: float = 1e-5, **options: Any
    ) -> None:
        """The energy is that of the differentiated dense model, relative to its electrostatics."""
        cell = atoms.cell.array if atoms.pbc.any() and not model.config.isolated else None
        pbc = atoms.pbc if cell is not None else False
        expected = evaluate_eagerly(model, atoms.numbers, atoms.positions, cell, charge, pbc)
        found = energy(self.door, model, atoms, charge, self.folder, **options)
        assert abs(found - expected.energy) < error * max(expected.electrostatic, 1.0)

    def molecule(self) -> None:
        self.same(self.fixture("tiny_model"), self.fixture("cluster"))

    def crystal(self) -> None:
        self.same(self.fixture("tiny_model"), self.fixture("tiny_salt"))

    def charged(self) -> None:
        self.same(self.fixture("tiny_model"), self.fixture("cluster"), charge=1.0)
        self.same(self.fixture("tiny_model"), self.fixture("tiny_salt"), charge=-1.0)

    def slab(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("tiny_slab")
        options = {} if self.door in ("ase", "evaluator") else {"slab": True}
        self.same(model, atoms, charge=1.0, **options)

    def field(self) -> None:
        """In V/Å for ASE and the evaluator, in V/nm for OpenMM."""
        model, atoms, field = self.fixture("tiny_model"), self.fixture("cluster"), np.ones(3)
        graph = model.build_graph(atoms.numbers, atoms.positions, electric_field=0.1 * field)
        given = 0.1 * field if self.door in ("ase", "evaluator") else field
        found = energy(self.door, model, atoms, folder=self.folder, electric_field=given)
        expected = float(model(graph).energy)
        assert abs(found - expected) < 1e-6
        assert abs(found - energy(self.door, model, atoms, folder=self.folder)) > 1e-3

    def charge_groups(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        held = {"charge_groups": [[0, 1], [2, 3, 4]], "group_charges": [1.0, -1.0, 0.0]}
        graph = model.build_graph(atoms.numbers, atoms.positions, **held)
        found = energy(self.door, model, atoms, folder=self.folder, **held)
        expected = float(model(graph).energy)
        assert abs(found - expected) < 1e-6
        assert abs(found - energy(self.door, model, atoms, folder=self.folder)) > 1e-3

    def electrodes(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        graph = model.build_graph(atoms.numbers, atoms.positions, **ELECTRODES)
        found = energy(self.door, model, atoms, folder=self.folder, **ELECTRODES)
        assert abs(found - float(model(graph).energy)) < 1e-6
        assert abs(found - energy(self.door, model, atoms, folder=self.folder)) > 1e-3

    def variables(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        if self.door == "ase":
            raise (
                Refused("observe") if not hasattr(NequIPLRCalculator, "observe") else AssertionError
            )
        if self.door == "evaluator":
            graph = model.build_graph(atoms.numbers, atoms.positions)
            assert Evaluator(model).observe(graph, [GroupCharge((0,))])[0].gradient.any()
            return
        if self.door == "export":
            energy("export", model, atoms, folder=self.folder)
            simulation.charge_variable(self.folder / "model.pt", [0])
        system, start = system_of(self.door, model, atoms, 0.0), from_atoms(atoms)
        system.addForce(simulation.charge_variable(system, [0]))
        system.getForce(system.getNumForces() - 1).setForceGroup(5)
        context = context_of(system, start.positions)
        found = context.getState(energy=True, groups={5}).getPotentialEnergy()._value
        assert abs(found - current_evaluation(context).charges[0]) < 1e-6

    def parameters(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        start, names = from_atoms(atoms), ["model_scale"]
        if self.door == "export":
            energy("export", model, atoms, folder=self.folder, parameters=names)
        context = context_of(
            system_of(self.door, model, atoms, 0.0, parameters=names), start.positions
        )
        context.setParameter("model_scale", 0.0)
        assert context.getState(energy=True).getPotentialEnergy()._value == 0.0

    def effective(self) -> None:
        self.same(self.fixture("make_model")(effective_charges=True), self.fixture("cluster"))

    def short_range(self) -> None:
        self.same(self.fixture("make_model")(equilibration=False), self.fixture("cluster"))

    def legacy_periodic(self) -> None:
        self.same(self.fixture("make_model")(legacy_periodic=True), self.fixture("tiny_salt"))

    def legacy_free(self) -> None:
        self.same(self.fixture("make_model")(legacy_nonperiodic=True), self.fixture("cluster"))

    def isolated(self) -> None:
        """An atom is given at another image."""
        model, whole = self.fixture("make_model")(isolated=True), self.fixture("cluster").copy()
        whole.set_cell([12.0, 12.0, 12.0])
        whole.pbc = True
        cut = whole.copy()
        cut.positions[3, 0] += 12.0
        expected = evaluate_eagerly(model, whole.numbers, whole.positions, None).energy
        found = energy(self.door, model, cut, folder=self.folder)
        if abs(found - expected) > 1e-5:
            raise Refused("it takes positions as they are")

    def iterative(self) -> None:
        options = {"solver": "iterative", "charge_tolerance": 1e-7}
        self.same(self.fixture("tiny_model"), self.fixture("tiny_salt"), **options)

    def precision(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        self.same(model, atoms, error=1e-4, precision="single")
        double = energy(self.door, model, atoms, folder=self.folder)
        single = energy(self.door, model, atoms, folder=self.folder, precision="single")
        assert single != double

    def pme(self) -> None:
        taker = {"ase": NequIPLRCalculator, "evaluator": Evaluator, "export": export_torch_force}
        function = taker.get(self.door)
        if function is not None and "long_range" not in inspect.signature(function).parameters:
            raise Refused("long_range")
        self.same(self.fixture("tiny_model"), self.fixture("tiny_salt"), long_range="openmm")

    def stress(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("tiny_salt").copy()
        if self.door == "ase":
            atoms.info["total_charge"] = 0.0
            atoms.calc = NequIPLRCalculator(model)
            assert np.abs(atoms.get_stress()).max() > 1e-4
        elif self.door == "evaluator":
            graph = model.build_graph(atoms.numbers, atoms.positions, atoms.cell.array, True)
            assert Evaluator(model)(graph, compute_stress=True).stress.shape == (3, 3)
        else:
            raise Refused("stress") if not hasattr(openmm.State, "getStress") else AssertionError

    def barostat(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("tiny_salt")
        if self.door == "ase":
            self.stress()
            return
        start = from_atoms(atoms)
        if self.door == "export":
            energy("export", model, atoms, folder=self.folder)
            graph = torch.jit.load(str(self.folder / "model.pt"))
            points, box = map(torch.from_numpy, (start.positions, start.box))
            energies = [float(graph(scale * points, scale * box)[0]) for scale in (1.0, 1.01)]
            assert energies[0] != energies[1]
            return
        system = system_of(self.door, model, atoms, 0.0)
        system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 1))
        context = context_of(system, start.positions)
        before = context.getState().getPeriodicBoxVolume()._value
        context.getIntegrator().step(12)
        assert context.getState().getPeriodicBoxVolume()._value != before

    def some_atoms(self) -> None:
        """An argon atom, which the model does not know, stands beside the others."""
        from ase import Atoms

        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        more = Atoms("Ar", [[20.0, 0.0, 0.0]]) + atoms
        if self.door == "openmmml":
            self.mixed()
            return
        if self.door not in BACKENDS:
            energy(self.door, model, more, folder=self.folder)
            return
        start, system = from_atoms(more), openmm.System()
        for _ in range(len(more)):
            system.addParticle(20.0)
        chosen, backend = list(range(1, len(more))), BACKENDS[self.door]
        system.addForce(
            create_force(start.topology, model, atoms=chosen, total_charge=0, backend=backend)
        )
        found = context_of(system, start.positions).getState(energy=True).getPotentialEnergy()
        expected = evaluate_eagerly(model, atoms.numbers, atoms.positions, None).energy
        assert abs(found._value / EV_TO_KJ_PER_MOL - expected) < 1e-5

    def mixed(self) -> None:
        if self.door != "openmmml":
            makers = [name for name in dir(simulation) if "mixed" in name.lower()]
            raise Refused("mixed") if not makers else AssertionError(makers)
        mixture = self.fixture("mixture")()
        model = self.fixture("tiny_model")
        potential = pytest.importorskip("openmmml").MLPotential("nequiplr", modelPath=model)
        topology, field = mixture.topology(), mixture.system()
        system = potential.createMixedSystem(topology, field, mixture.ml, totalCharge=0)
        context = context_of(system, mixture.positions)
        assert np.isfinite(context.getState(energy=True).getPotentialEnergy()._value)

    def embedding(self) -> None:
        """A charge beside the atoms moves theirs."""
        from ase import Atoms

        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        charge, site = 1.0, atoms.positions.max(axis=0) + 3.0
        if self.door in ("ase", "export"):
            energy(self.door, model, atoms, folder=self.folder, outside_charges={8: charge})
            return
        alone = evaluate_eagerly(model, atoms.numbers, atoms.positions, None).charges
        start, system = from_atoms(atoms + Atoms("Na", [site])), openmm.System()
        inside = list(range(len(atoms)))
        for _ in range(len(atoms) + 1):
            system.addParticle(20.0)
        if self.door == "evaluator":
            outside = OutsideCharges(torch.tensor([charge], dtype=torch.float64))
            around = Surroundings(outside, torch.from_numpy(site[None]))
            graph = model.build_graph(atoms.numbers, atoms.positions)
            found = Evaluator(model)(graph, surroundings=around).charges
        elif self.door == "openmmml":
            force = openmm.NonbondedForce()
            for index in range(len(atoms) + 1):
                force.addParticle(charge if index == len(atoms) else 0.0, 0.3, 0.0)
            system.addForce(force)
            potential = pytest.importorskip("openmmml").MLPotential("nequiplr", modelPath=model)
            arguments = start.topology, system, inside
            system = potential.createMixedSystem(*arguments, embedding="electrostatic", charge=0)
            found = current_evaluation(context_of(system, start.positions)).charges
        else:
            options = {"backend": BACKENDS[self.door], "outside_charges": {len(atoms): charge}}
            system.addForce(
                create_force(start.topology, model, atoms=inside, total_charge=0, **options)
            )
            found = current_evaluation(context_of(system, start.positions)).charges
        assert np.abs(found - alone).max() > 1e-3

    def replicas(self) -> None:
        model, atoms, charges = self.fixture("tiny_model"), self.fixture("cluster"), [0.0, 1.0]
        if self.door == "export":
            energy("export", model, atoms + atoms, folder=self.folder, replicas=2)
        system = system_of(self.door, model, atoms + atoms, charges, replicas=2)
        context = context_of(system, np.tile(from_atoms(atoms).positions, (2, 1)))
        found = current_evaluation(context).charges.reshape(2, -1).sum(axis=1)
        assert np.abs(found - charges).max() < 1e-6

    def inner(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        cheap = self.fixture("make_model")(equilibration=False, num_layers=0, l_max=0)
        if self.door == "export":
            energy("export", model, atoms, folder=self.folder, inner=cheap)
        system, start = system_of(self.door, model, atoms, 0.0), from_atoms(atoms)
        simulation.add_inner_potential(system, start.topology, cheap)
        context = context_of(system, start.positions)
        groups = ({0}, {1}, {0, 1})
        states = [context.getState(energy=True, groups=each) for each in groups]
        slow, fast, whole = (each.getPotentialEnergy()._value for each in states)
        expected = evaluate_eagerly(model, atoms.numbers, atoms.positions, None).energy
        assert abs(whole / EV_TO_KJ_PER_MOL - expected) < 1e-6
        assert abs(slow + fast - whole) < 1e-9 < abs(fast)

    def charges(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        expected = evaluate_eagerly(model, atoms.numbers, atoms.positions, None).charges
        start = from_atoms(atoms)
        if self.door == "ase":
            copied = atoms.copy()
            copied.info["total_charge"], copied.calc = 0.0, NequIPLRCalculator(model)
            found = copied.get_charges()
        elif self.door == "evaluator":
            graph = model.build_graph(atoms.numbers, atoms.positions)
            found = Evaluator(model)(graph).charges
        elif self.door == "export":
            energy("export", model, atoms, folder=self.folder)
            graph = torch.jit.load(str(self.folder / "model.pt"))
            found = graph.evaluate(torch.from_numpy(atoms.positions), None)[2].numpy()
        else:
            system = system_of(self.door, model, atoms, 0.0)
            found = current_evaluation(context_of(system, start.positions)).charges
        assert np.abs(found - expected).max() < 1e-6

    def committee(self) -> None:
        from openmm import app

        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        if self.door in ("ase", "evaluator", "export"):
            energy(self.door, [model, model], atoms, folder=self.folder)
            return
        start = from_atoms(atoms)
        system = system_of(self.door, model, atoms, 0.0)
        integrator = openmm.VerletIntegrator(0.0005)
        run = app.Simulation(start.topology, system, integrator, REFERENCE)
        run.context.setPositions(start.positions)
        path = self.folder / "spread.npy"
        run.reporters.append(CommitteeReporter(path, 1, [model]))
        run.step(1)
        assert simulation.load_spread(path).forces.shape == (1, len(atoms))

    def stored(self) -> None:
        model, atoms = self.fixture("tiny_model"), self.fixture("cluster")
        start, path = from_atoms(atoms), self.folder / "system.xml"
        simulation.save_system(system_of(self.door, model, atoms, 0.0), path)
        context = context_of(simulation.load_system(path), start.positions)
        found = context.getState(energy=True).getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
        expected = evaluate_eagerly(model, atoms.numbers, atoms.positions, None).energy
        assert abs(found - expected) < 1e-5

    def alone(self) -> None:
        if self.door == "export":
            energy("export", self.fixture("tiny_model"), self.fixture("tiny_salt"), 0, self.folder)
            graph = torch.jit.load(str(self.folder / "model.pt"))
        else:
            system = system_of(self.door, self.fixture("tiny_model"), self.fixture("tiny_salt"), 0)
            if self.door != "torch":
                text = openmm.XmlSerializer.serialize(system)
                raise Refused("Python") if "PythonForce" in text else AssertionError
            module = sys.modules["openmmtorch"]
            graph = module.TorchForce.cast(system.getForce(0)).getModule()
        if "openmm_nequiplr::" in str(graph.inlined_graph):
            raise Refused("an operator")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_the_table_is_right(feature, door, request, tmp_path, tiny_model):
    said = FEATURES[feature].cell(door)
    if said == "–":
        return
    if door == "torch":
        reason = missing_backend("torch", tiny_model)
        if reason:
            pytest.skip(reason)
    attempt = getattr(Trial(door, request, tmp_path), feature)
    if said == "yes":
        attempt()
    else:
        with pytest.raises(REFUSALS):
            attempt()


def test_rows_and_trials_are_the_same():
    trials = {name for name in vars(Trial) if not name.startswith("_")}
    assert trials - {"same"} == set(FEATURES)


def test_doors_of_reasons_are_known():
    for feature in FEATURES.values():
        assert set(feature.reasons()) | set(feature.absent.split()) <= set(DOORS)
