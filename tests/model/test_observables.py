"""Charges of groups and dipoles with their gradients, and the scale of the Coulomb part."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import Evaluator, GroupCharge, GroupDipole

STEP = 1e-4
TIGHT = {"charge_tolerance": 1e-10}
KINDS = {
    "full functional": {"electrostatic_energy": "qeq"},
    "Coulomb energy": {"electrostatic_energy": "coulomb", "effective_charges": True},
    "no layers before the charges": {"num_layers": 0},
}
OBSERVABLES = (
    GroupCharge((0, 2)),
    GroupCharge((4,), (1, 3)),
    GroupDipole((1.0, -2.0, 0.5), (0, 1, 3)),
)
FIELD = np.array([0.2, -0.1, 0.3])


@pytest.fixture(params=KINDS)
def model(request, make_model):
    return make_model(**KINDS[request.param])


@pytest.fixture(params=["isolated", "field", "cell"])
def build(request, molecule, crystal):
    """Makes the graph of a structure that is moved."""
    if request.param == "cell":

        def periodic(model, moved=0.0):
            points = crystal.positions + moved
            return model.build_graph(crystal.numbers, points, crystal.cell.array, True)

        return periodic
    field = FIELD if request.param == "field" else None

    def isolated(model, moved=0.0):
        points = molecule.positions + moved
        return model.build_graph(molecule.numbers, points, total_charge=1.0, electric_field=field)

    return isolated


def displacements(count):
    for i, b in ((0, 0), (3, 2), (5, 1)):
        moved = np.zeros((count, 3))
        moved[i, b] = STEP
        yield i, b, moved


def test_gradients_against_differences(model, build):
    dense, iterative = (Evaluator(model, solver=s, **TIGHT) for s in ("dense", "iterative"))
    graph = build(model)
    both = [each.observe(graph, OBSERVABLES) for each in (dense, iterative)]
    for evaluator, found in zip((dense, iterative), both, strict=True):
        charges = evaluator.charges(graph)[0]
        assert found[0].value == pytest.approx(charges[0] + charges[2], abs=1e-8)
        assert found[1].value == pytest.approx(charges[4] - charges[1] - charges[3], abs=1e-8)
        for each in found:  # nothing depends on the origin, but for the energy of ions in a field
            assert np.abs(each.gradient.sum(axis=0)).max() < 1e-8
    for i, b, moved in displacements(graph.num_atoms):
        ends = [dense.observe(build(model, s * moved), OBSERVABLES) for s in (1, -1)]
        for *found, plus, minus in zip(*both, *ends, strict=True):
            slope = (plus.value - minus.value) / (2 * STEP)
            for each in found:
                assert each.gradient[i, b] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_an_evaluation_brings_them(model, build, solver):
    """They cost no exactness of the energy, and are the same."""
    graph = build(model)
    alone = Evaluator(model, solver=solver, **TIGHT).observe(graph, OBSERVABLES)
    plain = Evaluator(model, solver=solver, **TIGHT)(graph)
    both = Evaluator(model, solver=solver, **TIGHT)(graph, observables=OBSERVABLES)
    for one, other in zip(alone, both.observed, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-9)
        np.testing.assert_allclose(one.gradient, other.gradient, atol=1e-8)
    assert both.energy == pytest.approx(plain.energy, abs=1e-10)
    np.testing.assert_allclose(both.forces, plain.forces, atol=1e-9)
    assert plain.observed == ()


def test_dipole_of_a_molecule(make_model, molecule):
    """Of a neutral one it is Σ Q r, and its gradient the Born charges; images do not matter."""
    model = make_model()
    graph = model.build_graph(molecule.numbers, molecule.positions)
    response = Evaluator(model).response(graph)
    for axis, direction in enumerate(np.eye(3)):
        (found,) = Evaluator(model).observe(graph, [GroupDipole(3 * direction)])
        assert found.value == pytest.approx(response.dipole[axis], abs=1e-9)
        np.testing.assert_allclose(found.gradient, response.born_charges[:, axis], atol=1e-9)
    everyone = GroupDipole((0, 0, 1), range(len(molecule)))
    cell = 30.0 * np.eye(3)
    values = []
    for shift in (0, 1):
        points = molecule.positions.copy()
        points[2] += shift * cell[1] - shift * cell[2]
        graph = model.build_graph(molecule.numbers, points, cell, True)
        values.append(Evaluator(model).observe(graph, [everyone])[0].value)
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    assert values[0] == pytest.approx(response.dipole[2], abs=1e-2)


@pytest.mark.parametrize(("solver", "scale"), [("dense", 0.0), ("iterative", 1.7)])
def test_scale_of_the_coulomb_part(model, build, scale, solver):
    """The energy is linear in it, and forces stay exact."""
    evaluator = Evaluator(model, solver=solver, **TIGHT)
    graph = build(model)
    whole, found = evaluator(graph), evaluator(graph, coulomb_scale=scale)
    short = whole.parts["short_range"]
    assert whole.energy == pytest.approx(short + whole.electrostatic, abs=1e-8)
    assert found.energy == pytest.approx(short + scale * whole.electrostatic, abs=1e-8)
    assert found.electrostatic == pytest.approx(whole.electrostatic, abs=1e-8)
    assert sum(found.parts.values()) == pytest.approx(found.energy, abs=1e-9)
    np.testing.assert_allclose(found.charges, whole.charges, atol=1e-9)
    for i, b, moved in displacements(graph.num_atoms):
        ends = [evaluator(build(model, s * moved), coulomb_scale=scale).energy for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert found.forces[i, b] == pytest.approx(-slope, abs=2e-6)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: GroupCharge(()), "atoms"),
        (lambda: GroupCharge((0, 0)), "atoms"),
        (lambda: GroupCharge((0,), (0,)), "minus"),
        (lambda: GroupCharge("12"), "atoms"),
        (lambda: GroupCharge((-1,)), "atoms"),
        (lambda: GroupDipole((0, 0, 0)), "direction"),
        (lambda: GroupDipole("x"), "direction"),
        (lambda: GroupDipole((0, 0, 1), (True,)), "atoms"),
    ],
)
def test_what_is_no_observable(make, name):
    with pytest.raises(InputError, match=f"^{name}: "):
        make()


def test_refusals(make_model, molecule, crystal):
    model = make_model()
    graph = model.build_graph(molecule.numbers, molecule.positions)
    with pytest.raises(InputError, match="indices from 0 to 6"):
        Evaluator(model).observe(graph, [GroupCharge((7,))])
    periodic = model.build_graph(crystal.numbers, crystal.positions, crystal.cell.array, True)
    with pytest.raises(InputError, match="depends on the images"):
        Evaluator(model).observe(periodic, [GroupDipole((0, 0, 1))])
    bare = make_model(equilibration=False)
    graph = bare.build_graph(molecule.numbers, molecule.positions)
    for arguments in ({"observables": OBSERVABLES}, {"coulomb_scale": 0.5}):
        with pytest.raises(InputError, match="expected one with equilibration"):
            Evaluator(bare)(graph, **arguments)


def test_in_a_slab(make_model, molecule):
    """Images count in the plane, and not along the normal."""
    model, cell = make_model(), np.diag([9.0, 9.5, 30.0])
    observables = (GroupCharge((0, 2)), GroupDipole((0.3, 0.0, 1.0), (0, 1, 3)))

    def observed(moved):
        points = molecule.positions + moved
        graph = model.build_graph(molecule.numbers, points, cell, (True, True, False))
        return Evaluator(model).observe(graph, observables)

    found = observed(0.0)
    for i, b, moved in displacements(len(molecule)):
        for each, plus, minus in zip(found, observed(moved), observed(-moved), strict=True):
            slope = (plus.value - minus.value) / (2 * STEP)
            assert each.gradient[i, b] == pytest.approx(slope, abs=1e-6)
    image = np.zeros((len(molecule), 3))
    image[1] = cell[0]
    for one, other in zip(found, observed(image), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-9)
