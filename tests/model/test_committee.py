"""Committees: spreads against NumPy, and models that cannot be compared."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from openmm_nequiplr.errors import InputError, ModelFileError, NequIPLRWarning
from openmm_nequiplr.model import Evaluator, save_model
from openmm_nequiplr.model.committee import (
    Committee,
    Spread,
    deviation,
    load_members,
    member_paths,
)


@pytest.fixture
def members(make_model, shaken):
    model = make_model()
    return [model, shaken(model, 1), shaken(model, 2)]


def structure(atoms):
    return atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc


@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_spread_against_numpy(members, request, name):
    atoms = request.getfixturevalue(name)
    result = Committee(members)(*structure(atoms), total_charge=1.0)
    energies, forces, charges = [], [], []
    for model in members:
        graph = model.build_graph(*structure(atoms), total_charge=1.0)
        one = Evaluator(copy.deepcopy(model))(graph)
        energies.append(one.energy)
        forces.append(one.forces)
        charges.append(one.charges)
    assert result.energy == pytest.approx(np.mean(energies), rel=1e-12)
    np.testing.assert_allclose(result.forces, np.mean(forces, axis=0), atol=1e-12)
    np.testing.assert_allclose(result.charges, np.mean(charges, axis=0), atol=1e-12)
    assert result.spread.energy == pytest.approx(np.std(energies), rel=1e-9)
    np.testing.assert_allclose(result.spread.charges, np.std(charges, axis=0), atol=1e-12)
    for atom in range(len(atoms)):
        own = np.array(forces)[:, atom]
        lengths = np.linalg.norm(own - own.mean(axis=0), axis=1)
        expected = np.sqrt(np.mean(lengths**2))
        assert result.spread.forces[atom] == pytest.approx(expected, rel=1e-9)
    assert result.spread.largest_force == result.spread.forces.max() > 1e-4


def test_identical_models_are_not_spread(make_model, crystal):
    model = make_model()
    with pytest.warns(NequIPLRWarning, match="models 1 and 2 are the same and never disagree"):
        committee = Committee([model, copy.deepcopy(model), copy.deepcopy(model)])
    result = committee(*structure(crystal))
    assert result.spread.energy == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(result.spread.forces, 0.0, atol=1e-13)
    np.testing.assert_allclose(result.spread.charges, 0.0, atol=1e-13)
    assert np.abs(result.forces).max() > 1e-3


def test_models_with_other_cutoffs_and_types_have_graphs_of_their_own(make_model, crystal):
    """The order of the types and the cutoff are no part of what is compared."""
    first = make_model()
    second = make_model(r_max=3.2, type_names=("Cl", "O", "Na"))
    together = Committee([first, second])(*structure(crystal))
    for model, result in zip((first, second), together.members, strict=True):
        alone = Evaluator(copy.deepcopy(model))(model.build_graph(*structure(crystal)))
        np.testing.assert_allclose(result.forces, alone.forces, atol=1e-12)


def test_deviation_of_vectors_is_a_length():
    values = np.array([[[3.0, 0.0, 4.0]], [[-3.0, 0.0, -4.0]]])
    assert deviation(values, vectors=True) == pytest.approx([5.0])
    np.testing.assert_allclose(deviation(values), [[3.0, 0.0, 4.0]])


def test_a_directory_stands_for_its_members(members, tmp_path, crystal):
    for seed, model in zip((2, 10, 0), members, strict=True):
        save_model(model, tmp_path / f"seed_{seed}" / "model.safetensors")
    names = [path.parent.name for path in member_paths(tmp_path)]
    assert names == ["seed_0", "seed_2", "seed_10"]
    assert len(load_members([members[0], tmp_path])) == 4
    energy = Committee([tmp_path])(*structure(crystal)).spread.energy
    assert energy == pytest.approx(Committee(members)(*structure(crystal)).spread.energy)


def test_mistakes_are_named(make_model, tmp_path, crystal):
    model = make_model()
    with pytest.raises(InputError, match="committee: expected two models or more"):
        Committee([model])
    with pytest.raises(InputError, match="committee, model 2: expected the elements"):
        Committee([model, make_model(type_names=("Na", "Cl"))])
    with pytest.raises(InputError, match="committee, model 2: expected charge equilibration"):
        Committee([model, make_model(equilibration=False)])
    with pytest.raises(ModelFileError, match=r"committee: expected a directory with models seed_"):
        Committee([tmp_path])
    graph = model.build_graph(*structure(crystal))
    silent = Evaluator(copy.deepcopy(model))(graph, compute_forces=False)
    with pytest.raises(InputError, match="forces in all"):
        Spread.of([silent, silent])


def test_a_shipped_name_is_no_committee(tmp_path, monkeypatch):
    """Results of a run may stand in a directory of that name."""
    from openmm_nequiplr.model import load_model, shipped_models
    from openmm_nequiplr.model.committee import is_committee, member_sources
    from openmm_nequiplr.pretrained import model_path

    monkeypatch.chdir(tmp_path)
    (tmp_path / "carbon-chain").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "au2-mgo").write_text("a log")
    assert member_sources(["carbon-chain"]) == ["carbon-chain"]
    assert [is_committee(name) for name in ("carbon-chain", "./carbon-chain", "own")] == [
        False, True, True,
    ]  # fmt: skip
    assert model_path("au2-mgo") == shipped_models()["au2-mgo"]
    assert load_model("carbon-chain").config.type_names == ("H", "C")
