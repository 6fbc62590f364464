"""Models without equilibration: one short-range network, no charges, and nothing far away."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import (
    Evaluator,
    ModelConfig,
    NequIPLRPotential,
    load_model,
    save_model,
)
from openmm_nequiplr.model.info import describe_model


@pytest.fixture
def model(make_model):
    return make_model(equilibration=False)


def build(model, atoms, charge=0.0):
    return model.build_graph(
        atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc, charge
    )


def evaluate(model, atoms, **options):
    return Evaluator(model)(build(model, atoms), **options)


def test_it_is_one_network_of_all_layers(make_model, model):
    assert model.electronegativity_stage is None
    assert len(model.energy_stage.convolutions.layers) == 2 + 1
    assert model.config.receptive_field == make_model().config.receptive_field
    fresh = NequIPLRPotential(model.config)
    names = [n for n, p in fresh.named_parameters() if p.requires_grad]
    assert names
    assert all(name.startswith("energy_stage.") for name in names)


@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_forces_and_stress_are_slopes_of_the_energy(model, request, rng, name):
    atoms = request.getfixturevalue(name)
    periodic = bool(atoms.pbc.all())
    result = evaluate(model, atoms, compute_stress=periodic)
    assert np.abs(result.forces).max() > 1e-3
    direction, step = rng.normal(size=result.forces.shape), 1e-5
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        energies.append(evaluate(model, moved).energy)
    slope = (energies[0] - energies[1]) / (2 * step)
    assert -(result.forces * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8)
    if periodic:
        strain = rng.normal(size=(3, 3))
        strain = 0.5 * (strain + strain.T)
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ (np.eye(3) + sign * step * strain), scale_atoms=True)
            energies.append(evaluate(model, moved).energy)
        slope = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert (result.stress * strain).sum() == pytest.approx(slope, rel=1e-5)


def test_there_are_no_charges(model, crystal):
    graph = build(model, crystal)
    assert graph.ewald == (None,)
    result = Evaluator(model)(graph)
    for values in (result.charges, result.electronegativity, result.dipole, result.adjoint):
        assert not values.any()
    assert result.parts["coulomb"] == 0.0
    assert result.energy == pytest.approx(sum(result.parts.values()))
    charges, chi = Evaluator(model).charges(graph)
    assert charges.shape == chi.shape == (len(crystal),)
    assert not charges.any()


def test_far_fragments_are_strangers(make_model, model, molecule):
    """Their energies add up exactly; with equilibration they do not."""
    other = molecule.copy()
    other.positions += [40.0, 0.0, 0.0]
    for each, additive in ((model, True), (make_model(), False)):
        gap = evaluate(each, molecule + other).energy - 2 * evaluate(each, molecule).energy
        assert (abs(gap) < 1e-9) == additive or (not additive and abs(gap) > 1e-6)


def test_the_total_charge_is_without_effect(model, molecule):
    energies = [Evaluator(model)(build(model, molecule, q)).energy for q in (0.0, 2.0)]
    assert energies[0] == energies[1]


def test_batches_and_files(model, molecule, crystal, tmp_path):
    graphs = [build(model, atoms) for atoms in (molecule, crystal)]
    batch = model(AtomicGraph.collate(graphs))
    for index, graph in enumerate(graphs):
        assert batch.energy[index].item() == pytest.approx(model(graph).energy.item(), rel=1e-12)
    save_model(model, tmp_path / "short.safetensors")
    again = load_model(tmp_path / "short.safetensors")
    assert again.config == model.config
    assert evaluate(again, crystal).energy == evaluate(model, crystal).energy
    assert "one short-range network, no charges" in describe_model(again)


def test_a_force_loss_can_be_differentiated(model, crystal):
    import copy

    trained = copy.deepcopy(model).train()
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(name.startswith("energy_stage"))
    trained(build(model, crystal)).forces.square().sum().backward()
    weights = [p for p in trained.parameters() if p.requires_grad]
    assert any(p.grad is not None and bool(p.grad.any()) for p in weights)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in weights)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"r_max_charge": 3.0}, "r_max_charge: expected nothing, or r_max"),
        ({"num_layers": 0, "num_layers_charge": 0}, "num_layers: expected at least one layer"),
        ({"effective_charges": True}, "effective_charges: expected false"),
        ({"shared_features": True}, "shared_features: expected false"),
        ({"equilibration": 0}, "equilibration: expected true or false"),
    ],
)
def test_contradictions_are_refused(options, text):
    settings = {"type_names": ["Na"], "r_max": 4.0, "equilibration": False, **options}
    with pytest.raises(InputError, match=text):
        ModelConfig(**settings)
