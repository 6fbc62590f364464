"""The potential: derivatives, batches, precision, and its evaluation by two charge sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import Evaluator

VARIANTS = {
    "default": {},
    "coulomb energy": {"electrostatic_energy": "coulomb"},
    "no charge layers": {"num_layers_charge": 0},
    "no charge layers, coulomb energy": {
        "num_layers_charge": 0,
        "electrostatic_energy": "coulomb",
    },
    "l_max 0": {"l_max": 0},
    "l_max 2, even": {"l_max": 2, "parity": False},
    "no pseudotensors": {"l_max": 2, "pseudotensors": False, "shared_features": True},
    "two cutoffs": {"r_max_charge": 2.9},
    "wider second cutoff": {"r_max_charge": 4.1},
    "own constant and widths": {"coulomb_constant": 20.0, "gaussian_widths": (0.5, 1.0, 0.9)},
    "repulsion": {"zbl": True},
    "priors": {
        "zbl": True,
        "shortest_distances": ((1.2, 2.4, 3.0), (2.4, 3.0, 2.7), (3.0, 2.7, 3.2)),
        "electronegativity_bound": 0.5,
    },
    "residual": {"resnet": True, "use_sc": False},
    "whole last layer": {"scalar_last_layer": False},
    "effective charges": {"effective_charges": True},
    "effective charges, coulomb energy": {
        "effective_charges": True,
        "electrostatic_energy": "coulomb",
    },
    "shared features": {"shared_features": True},
    "shared features, two cutoffs, coulomb energy": {
        "shared_features": True, "r_max_charge": 2.9, "electrostatic_energy": "coulomb",
        "scalar_last_layer": False,
    },
    "shared features of the elements": {"shared_features": True, "num_layers": 0},
    "shared features, no charge layers": {"shared_features": True, "num_layers_charge": 0},
}  # fmt: skip


def build(model, atoms, charge=0.0):
    return model.build_graph(
        atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc, charge
    )


@pytest.fixture(params=["molecule", "crystal"])
def atoms(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("name", "charge"), [("default", 0.0), *((name, 1.0) for name in VARIANTS)]
)
def test_two_charge_sets_equal_the_differentiated_solve(make_model, atoms, name, charge):
    """The slow twin differentiates through the linear solve; the fast path never does."""
    model = make_model(**VARIANTS[name])
    graph = build(model, atoms, charge)
    slow = model(graph, compute_stress=True)
    fast = Evaluator(model)(graph, compute_stress=True)
    assert fast.energy == pytest.approx(slow.energy.item(), rel=1e-12)
    assert fast.charges == pytest.approx(slow.charges.numpy(), abs=1e-12)
    assert fast.forces == pytest.approx(slow.forces.numpy(), abs=1e-10)
    assert fast.stress == pytest.approx(slow.stress[0].numpy(), abs=1e-12)
    assert sum(fast.parts.values()) == pytest.approx(fast.energy, rel=1e-12)
    assert fast.parts["short_range"] == pytest.approx(slow.energy_short_range.item(), rel=1e-12)
    assert fast.charges.sum() == pytest.approx(charge, abs=1e-12)
    assert np.abs(fast.forces).max() > 1e-3


def test_parts_are_what_they_say(make_model, crystal):
    model = make_model()
    graph = build(model, crystal)
    result = Evaluator(model)(graph)
    q = result.charges
    hardness = model.hardness(graph.types).detach().numpy()
    kernel = model.coulomb_operator(graph, 0, graph.positions, graph.cell).matrix().numpy()
    assert result.parts["electronegativity"] == pytest.approx(q @ result.electronegativity)
    assert result.parts["hardness"] == pytest.approx(0.5 * (hardness * q * q).sum())
    assert result.parts["coulomb"] == pytest.approx(0.5 * q @ kernel @ q)


@pytest.mark.parametrize("name", VARIANTS)
def test_forces_are_the_slope_of_the_energy(make_model, atoms, rng, name):
    evaluator = Evaluator(make_model(**VARIANTS[name]))
    forces = evaluator(build(evaluator.model, atoms, 1.0)).forces
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-9)
    step = 1e-5
    for _ in range(2):
        direction = rng.normal(size=forces.shape)
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions += sign * step * direction
            energies.append(evaluator(build(evaluator.model, moved, 1.0), False).energy)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert -(forces * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_batch_equals_single_structures(make_model, molecule, crystal):
    """Sizes, cells and total charges mixed, periodic and not, in one solve."""
    model = make_model()
    small = molecule[:4]
    cases = [(molecule, 1.0), (crystal, 0.0), (small, -1.0), (crystal.repeat((1, 1, 2)), 2.0)]
    graphs = [build(model, atoms, charge) for atoms, charge in cases]
    batch = model(AtomicGraph.collate(graphs), compute_stress=True)
    single = [model(graph, compute_stress=True) for graph in graphs]
    for name in ("energy", "forces", "charges", "stress", "electronegativity", "dipole"):
        expected = torch.cat([getattr(s, name) for s in single])
        torch.testing.assert_close(getattr(batch, name), expected, rtol=1e-10, atol=1e-11)
    assert (batch.stress[0] == 0).all()
    with pytest.raises(InputError, match="graph: expected one structure"):
        Evaluator(model)(AtomicGraph.collate(graphs[:2]))


def test_losses_on_forces_can_be_differentiated(make_model, crystal):
    """Double backward through solve and network, against finite differences of a weight."""
    model = make_model()
    graph = build(model, crystal)
    weight = model.hardness_parameter
    weight.requires_grad_(True)

    def loss():
        return (model.train()(graph).forces ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = 1e-5
    for k in sorted(set(graph.types.tolist())):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[k] += sign * step
            values.append(loss().item())
            with torch.no_grad():
                weight[k] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert gradient[k].item() == pytest.approx(slope, rel=1e-6)
    model.eval()


def test_far_fragments_keep_talking(make_model, molecule):
    """Beyond every cutoff, energies are not additive: charge flows and fields act."""
    evaluator = Evaluator(make_model())
    other = molecule.copy()
    other.positions += [40.0, 0.0, 0.0]
    pair = molecule + other
    together = evaluator(build(evaluator.model, pair, 1.0))
    assert together.charges[: len(molecule)].sum() == pytest.approx(0.5, abs=0.02)
    alone = evaluator(build(evaluator.model, molecule, 0.5)).energy
    coulomb = 14.399645 * 0.25 / 40.0
    assert together.energy - 2 * alone == pytest.approx(coulomb, rel=0.2)


def test_smooth_at_the_cutoff(make_model):
    """Energy and forces change smoothly when a neighbour leaves the cutoff."""
    evaluator = Evaluator(make_model())
    distances = 3.5 + np.array([-2e-5, -1e-5, 1e-5, 2e-5])
    results = [
        evaluator(evaluator.model.build_graph(["Na", "Cl"], np.array([[0, 0, 0], [0, 0, d]])))
        for d in distances
    ]
    forces = np.array([r.forces[1, 2] for r in results])
    slopes = np.diff(forces) / np.diff(distances)
    assert slopes == pytest.approx(slopes[0], rel=1e-3)


@pytest.mark.parametrize("periodic", [False, True])
def test_single_and_double_precision_agree(make_model, molecule, crystal, periodic):
    import copy

    atoms = crystal if periodic else molecule
    double = make_model()
    single = copy.deepcopy(double).float()
    assert single.dtype == torch.float32
    assert single.energy_shifts.dtype == torch.float64
    first, second = (Evaluator(m)(build(m, atoms)) for m in (double, single))
    assert second.energy == pytest.approx(first.energy, rel=1e-6)
    assert second.charges == pytest.approx(first.charges, abs=1e-5)
    gap = np.linalg.norm(second.forces - first.forces) / np.linalg.norm(first.forces)
    assert gap < 1e-5


def test_shifts_of_all_electron_size_cost_no_digits(make_model, molecule):
    """Total energies of 10⁶ eV must not round the differences that matter."""
    import copy

    model = copy.deepcopy(make_model()).float()
    before = Evaluator(model)(build(model, molecule)).energy
    model.energy_shifts += -2.0e5
    after = Evaluator(model)(build(model, molecule)).energy
    assert after + 2.0e5 * len(molecule) == pytest.approx(before, abs=1e-8)
