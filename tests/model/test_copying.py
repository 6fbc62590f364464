"""Models can be copied, also where e3nn compiles its functions (with torch before 2.10)."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import e3nn
import numpy as np
import pytest
import torch

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.model import Evaluator, NequIPLRPotential


@pytest.mark.parametrize("mode", ["eager", "script"])
def test_a_copy_has_the_same_energy_and_weights_of_its_own(monkeypatch, make_model, crystal, mode):
    # Its own setter also changes other defaults, which are then not put back.
    monkeypatch.setitem(e3nn._OPT_DEFAULTS, "jit_mode", mode)
    model = NequIPLRPotential(make_model().config).double().eval()
    model.load_state_dict(make_model().state_dict())
    own = [value for module in model.modules() for value in vars(module).values()]
    assert not any(isinstance(value, torch.jit.ScriptFunction) for value in own)
    again = copy.deepcopy(model)
    graph = model.build_graph(
        crystal.numbers, crystal.positions, np.array(crystal.cell), crystal.pbc
    )
    energy = Evaluator(model)(graph).energy
    assert Evaluator(again)(graph).energy == energy
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert Evaluator(model)(graph).energy == energy


def uses(model, structure):
    """Everything that an evaluator does, by name."""
    return {
        "forces": lambda one: one(structure),
        "stress": lambda one: one(structure, compute_stress=bool(structure.periodic[0])),
        "charges": lambda one: one.charges(structure),
        "response": lambda one: one.response(structure),
        "other Coulomb code": lambda one: one(structure, point_charge_coulomb=nothing),
    }


def nothing(positions, cell, charges):
    return 0.0, np.zeros_like(positions)


@pytest.mark.parametrize(("name", "solver"), [("crystal", "iterative"), ("molecule", "dense")])
@pytest.mark.parametrize("use", ["forces", "stress", "charges", "response", "other Coulomb code"])
def test_evaluators_are_copied_and_pickled_after_use(make_model, request, solver, use, name):
    atoms, model = request.getfixturevalue(name), copy.deepcopy(make_model())
    graph = model.build_graph(atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc)
    evaluator = Evaluator(model, solver=solver, charge_tolerance=1e-10)
    uses(model, graph)[use](evaluator)
    expected = evaluator(graph)
    for again in (copy.deepcopy(evaluator), pickle.loads(pickle.dumps(evaluator))):
        found = again(graph)
        assert found.energy == pytest.approx(expected.energy, abs=1e-9)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-7)


def test_calculators_are_copied_with_their_structures(make_model, crystal):
    crystal.info["total_charge"] = 0.0
    crystal.calc = NequIPLRCalculator(make_model())
    forces = crystal.get_forces()
    crystal.calc.get_property("born_effective_charges", crystal)
    again = copy.deepcopy(crystal)
    again.calc.reset()
    np.testing.assert_allclose(again.get_forces(), forces, atol=1e-10)


def test_threads_share_an_evaluator(make_model, molecule, crystal):
    """Dense solves keep nothing of a structure that those of another could meet."""
    model = make_model()
    graphs = [
        model.build_graph(atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc)
        for atoms in (molecule, crystal)
    ]
    evaluator = Evaluator(model, solver="dense")
    expected = [evaluator(graph).energy for graph in graphs]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda index: evaluator(graphs[index % 2]).energy, range(40)))
    assert found == pytest.approx(20 * expected, abs=1e-12)
