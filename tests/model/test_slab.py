"""Slabs: charges, energies, forces and stress of every solver, and where their atoms are."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.errors import BoxError, InputError, NequIPLRWarning
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.model.scripted import script_model
from openmm_nequiplr.model.solving import SolverOptions

TTF = (True, True, False)
TIGHT = {"solver": "iterative", "charge_tolerance": 1e-10}
KINDS = {
    "full functional": {"electrostatic_energy": "qeq"},
    "Coulomb energy, offsets": {"electrostatic_energy": "coulomb", "effective_charges": True},
}


@pytest.fixture
def slab(crystal) -> Atoms:
    """The crystal between 14 Å of vacuum, across a face of the cell."""
    crystal.set_cell([[5.2, 0.0, 0.0], [1.1, 5.0, 0.0], [0.0, 0.0, 19.0]])
    crystal.pbc = TTF
    return crystal


@pytest.fixture(params=KINDS)
def model(request, make_model):
    return make_model(**KINDS[request.param])


def graph_of(model, atoms, positions=None, cell=None, charge=1.0, field=None):
    points = atoms.positions if positions is None else positions
    box = atoms.cell.array if cell is None else cell
    return model.build_graph(atoms.numbers, points, box, TTF, charge, electric_field=field)


def test_inference_is_the_differentiated_evaluation(model, slab):
    graph = graph_of(model, slab, field=(0.0, 0.0, 0.1))
    twin = model(graph, compute_forces=True, compute_stress=True)
    known = model(model.with_linearized(graph))
    torch.testing.assert_close(known.forces, twin.forces, rtol=0.0, atol=1e-10)
    for options, limit in (({"solver": "dense"}, 1e-10), (TIGHT, 1e-7)):
        found = Evaluator(model, **options)(graph, compute_stress=True)
        assert found.energy == pytest.approx(float(twin.energy), abs=limit)
        np.testing.assert_allclose(found.forces, twin.forces.numpy(), rtol=0.0, atol=limit)
        np.testing.assert_allclose(found.stress, twin.stress[0].numpy(), rtol=0.0, atol=limit)
        np.testing.assert_allclose(found.charges, twin.charges.numpy(), rtol=0.0, atol=limit)
    bulk = model.build_graph(slab.numbers, slab.positions, slab.cell.array, True, 1.0)
    assert np.abs(Evaluator(model).charges(bulk)[0] - found.charges).max() > 1e-3


@pytest.mark.parametrize("options", [{"solver": "dense"}, TIGHT])
def test_forces_and_stress_are_slopes_of_the_energy(model, slab, rng, options):
    """The cell stays that of a slab: no strain tilts its normal."""
    evaluator, cell, field = Evaluator(model, **options), slab.cell.array, (0.0, 0.0, 0.1)
    found = evaluator(graph_of(model, slab, field=field), compute_stress=True)

    def slope(points, box, step):
        graphs = [
            graph_of(model, slab, slab.positions + s * points, cell + s * box, field=field)
            for s in (step, -step)
        ]
        up, down = (evaluator(graph, False).energy for graph in graphs)
        return (up - down) / (2.0 * step)

    expected, forces = [], []
    for _ in range(5):
        direction = rng.normal(size=slab.positions.shape)
        forces.append(-np.vdot(found.forces, direction))
        expected.append(slope(direction, 0.0 * cell, 2e-5))
    errors = np.array(forces) - expected
    assert np.sqrt(np.mean(errors**2) / np.mean(np.square(expected))) < 1e-6
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5
        strain[j, i] += 0.5
        stress = slope(slab.positions @ strain, cell @ strain, 1e-4) / slab.cell.volume
        assert found.stress[i, j] == pytest.approx(stress, abs=2e-8)


def test_a_growing_gap_changes_nothing(make_model, slab):
    """The limit of an isolated layer, charged as well; bulk sums get there as 1/gap at best."""
    for charge in (0.0, 1.0):
        parts, forces = [], []
        for height in (19.0, 25.0, 60.0):
            cell = slab.cell.array * np.array([[1.0], [1.0], [height / 19.0]])
            found = Evaluator(make_model())(graph_of(make_model(), slab, None, cell, charge))
            parts.append(found.parts["coulomb"])
            forces.append(found.forces)
        assert parts[1] == pytest.approx(parts[2], rel=1e-8)
        assert parts[0] == pytest.approx(parts[2], rel=1e-5)
        errors = np.sqrt(np.mean((forces[0] - forces[2]) ** 2))
        assert errors < 1e-5 * np.sqrt(np.mean(forces[2] ** 2))
        # along the normal nothing but the virial of the forces is left
        virial = -np.sum(found.forces[:, 2] * slab.positions[:, 2])
        graph = graph_of(make_model(), slab, None, cell, charge)
        stress = Evaluator(make_model())(graph, compute_stress=True).stress
        assert stress[2, 2] * slab.cell.volume * height / 19.0 == pytest.approx(virial, abs=1e-6)


@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_atoms_that_cross_a_face_do_not_jump(make_model, slab, solver):
    """Atom by atom wrapped, or the whole slab moved: one evaluator, one energy, the same forces."""
    model, normal = make_model(), slab.cell.array[2]
    evaluator = Evaluator(model, solver=solver, charge_tolerance=1e-10)
    expected = evaluator(graph_of(model, slab))
    for shift in (0.0, 2.0, 9.0, 16.5, 18.0):
        moved = slab.positions + shift * normal / 19.0
        wrapped = moved - np.floor(moved[:, 2:] / 19.0) * normal
        assert shift != 18.0 or np.ptp(wrapped[:, 2]) > 10.0
        found = evaluator(graph_of(model, slab, wrapped))
        assert found.energy == pytest.approx(expected.energy, abs=1e-8)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0.0, atol=1e-7)
        dipole = expected.dipole[2] + shift * expected.charges.sum()
        images = (found.dipole[2] - dipole) / 19.0  # of a charge: the first atom's
        assert images == pytest.approx(round(images), abs=1e-7)


def test_the_network_does_not_see_across_the_vacuum(make_model, slab):
    """Two atoms that are near through the vacuum alone are no neighbours."""
    model = make_model(r_max=3.5)
    slab.cell[2] = [0.0, 0.0, np.ptp(slab.positions[:, 2]) + 3.0]
    thin = graph_of(model, slab)
    bulk = model.build_graph(slab.numbers, slab.positions, slab.cell.array, True)
    assert not thin.edge_shift[:, 2].any()
    assert thin.num_edges == int((bulk.edge_shift[:, 2] == 0).sum()) < bulk.num_edges


def test_vacuum_is_warned_of_where_it_is_thin(make_model, slab):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph_of(make_model(), slab)
    wide = slab.repeat((7, 1, 1))
    with pytest.warns(NequIPLRWarning, match="half of the longest lateral period"):
        graph_of(make_model(), wide)


@pytest.mark.parametrize("options", [SolverOptions("dense"), SolverOptions("iterative", 1e-10)])
def test_the_scripted_graph_is_the_same(model, slab, options):
    """Also where atoms, or all of them, change their images on the way."""
    field, normal = (0.0, 0.0, 0.1), slab.cell.array[2]
    graph = script_model(model, slab.numbers, TTF, 1.0, options=options, electric_field=field)
    wrapped = slab.positions.copy()
    wrapped[2] -= 2.0 * normal
    for positions in (slab.positions, wrapped, wrapped + normal, slab.positions + 0.01):
        given = graph_of(model, slab, positions, field=field)
        twin = model(given)
        energy, forces, charges = graph.evaluate(
            torch.from_numpy(positions), torch.from_numpy(slab.cell.array)
        )[:3]
        assert float(energy.detach()) == pytest.approx(float(twin.energy), abs=1e-7)
        torch.testing.assert_close(forces, twin.forces, rtol=0.0, atol=1e-7)
        torch.testing.assert_close(charges, twin.charges.detach(), rtol=0.0, atol=1e-7)
    leaning = torch.from_numpy(slab.cell.array).clone()
    leaning[2, 0] += 0.1
    with pytest.raises((RuntimeError, torch.jit.Error), match="perpendicular"):
        graph.evaluate(torch.from_numpy(positions), leaning)


def test_a_field_acts_along_the_normal(make_model, slab):
    """As a large isolated flake feels it in the middle; in the plane it has no meaning."""
    model = make_model()
    with_field = Evaluator(model)(graph_of(model, slab, charge=0.0, field=(0.0, 0.0, 0.1)))
    dipoles = [
        Evaluator(model)(graph_of(model, slab, charge=0.0, field=(0.0, 0.0, f))).dipole[2]
        for f in (0.099, 0.101)
    ]
    assert dipoles[1] > dipoles[0]
    calculator = NequIPLRCalculator(model, electric_field=[0.0, 0.0, 0.1])
    slab.info["total_charge"], slab.calc = 0.0, calculator
    assert slab.get_potential_energy() == pytest.approx(with_field.energy, abs=1e-10)
    with pytest.raises(InputError, match="along the normal of the slab: in its plane charge flows"):
        graph_of(model, slab, field=(0.1, 0.0, 0.1))
    with pytest.raises(InputError, match="in its plane"):
        script_model(model, slab.numbers, TTF, electric_field=(0.0, 0.1, 0.0))


def test_a_slab_in_any_orientation(make_model, slab, rng):
    model, turn = make_model(), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    field = np.array([0.0, 0.0, 0.1])
    expected = Evaluator(model)(graph_of(model, slab, field=field), compute_stress=True)
    turned = slab.positions @ turn, slab.cell.array @ turn, 1.0, field @ turn
    found = Evaluator(model)(graph_of(model, slab, *turned), compute_stress=True)
    assert found.energy == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(found.forces, expected.forces @ turn, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found.stress, turn.T @ expected.stress @ turn, atol=1e-11)


def test_born_charges_are_slopes_of_the_dipole(make_model, slab):
    """Along the normal, where they sum to the total charge."""
    model, step = make_model(), 1e-4
    evaluator = Evaluator(model)
    born = evaluator.response(graph_of(model, slab)).born_charges
    np.testing.assert_allclose(born.sum(axis=0)[2], [0.0, 0.0, 1.0], rtol=0.0, atol=1e-8)
    for index in ((0, 2), (3, 0), (5, 2)):
        dipoles = []
        for sign in (1.0, -1.0):
            moved = slab.positions.copy()
            moved[index] += sign * step
            charges = evaluator.charges(graph_of(model, slab, moved))[0]
            dipoles.append(charges @ moved[:, 2])
        expected = (dipoles[0] - dipoles[1]) / (2.0 * step)
        assert born[index[0], 2, index[1]] == pytest.approx(expected, abs=1e-6)


def test_one_evaluator_tells_slabs_and_bulk_apart(make_model, slab):
    """What an iterative solver remembers of one does not enter the other."""
    model, arguments = make_model(), (slab.numbers, slab.positions, slab.cell.array)
    evaluator = Evaluator(model, **TIGHT)
    for pbc in (True, TTF, True, TTF):
        graph = model.build_graph(*arguments, pbc)
        assert evaluator(graph).energy == pytest.approx(Evaluator(model)(graph).energy, abs=1e-8)


def test_batches_mix_boundaries(make_model, slab):
    model, arguments = make_model(), (slab.numbers, slab.positions, slab.cell.array)
    graphs = [model.build_graph(*arguments, pbc) for pbc in (True, TTF, False)]
    together = model(type(graphs[0]).collate(graphs), compute_stress=True)
    alone = [model(graph, compute_stress=True) for graph in graphs]
    for name in ("energy", "forces", "stress", "charges"):
        joined = torch.cat([getattr(each, name) for each in alone])
        torch.testing.assert_close(getattr(together, name), joined, rtol=0.0, atol=1e-10)


def test_what_is_no_slab_is_refused(make_model, slab):
    with pytest.raises(BoxError, match="perpendicular"):
        graph_of(make_model(), slab, cell=slab.cell.array + np.diag([0.1, 0.1], -1))
    with pytest.raises(InputError, match="charges do not interact"):
        graph_of(make_model(legacy_periodic=True), slab)
    isolated = make_model(isolated=True)
    assert not graph_of(isolated, slab).pbc[0]  # its molecules have no images
    graph = graph_of(make_model(equilibration=False), slab)
    assert graph.ewald == (None,)
    assert replace(graph).periodic == (True,)
