"""The start of the charge equilibration, and the Coulomb matrices that training keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import GraphDataset, labelled_graph
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import ModelConfig, NequIPLRPotential
from openmm_nequiplr.training.config import (
    DataConfig,
    EquilibrationConfig,
    LossConfig,
    TrainingConfig,
)
from openmm_nequiplr.training.initial import freeze
from openmm_nequiplr.training.start import (
    _Fixed,
    _stand_in_charges,
    learn_charges_first,
    set_start,
)


@pytest.fixture
def structures(crystal, rng):
    """Copies of a crystal; charges that depend on the element and a little on the site."""
    result = []
    sites = rng.normal(0.0, 0.02, size=6)
    for _ in range(4):
        positions = crystal.positions + rng.normal(0.0, 0.02, size=(6, 3))
        charges = np.where(np.array(crystal.get_chemical_symbols()) == "Cl", -0.6, 0.45) + sites
        result.append(
            Structure(
                symbols=tuple(crystal.get_chemical_symbols()),
                positions=positions,
                cell=np.array(crystal.cell),
                pbc=True,
                charges=charges - charges.mean(),
                forces=rng.normal(size=(6, 3)),
                energy=0.0,
            )
        )
    return result


def new_model(**options):
    torch.manual_seed(3)
    config = ModelConfig(
        type_names=("O", "Na", "Cl"), r_max=3.5, num_layers=1, num_features=4, **options
    )
    return NequIPLRPotential(config).double().train()


def charge_error(model, structures):
    model = model.eval()
    errors = []
    for s in structures:
        graph = model.build_graph(s.symbols, s.positions, s.cell, s.pbc)
        errors.append(model(graph, compute_forces=False).charges.detach().numpy() - s.charges)
    return float(np.sqrt(np.mean(np.square(errors))))


def test_hardness_and_offsets_are_set(structures):
    model = new_model(effective_charges=True)
    settings = EquilibrationConfig(hardness={"Na": 500.0, "O": 3.0}, charge_offset={"Na": 0.7})
    set_start(model, settings, GraphDataset(structures, model))
    hardness = model.hardness(torch.arange(3)).tolist()
    assert hardness == pytest.approx([3.0, 500.0, 1.1], rel=1e-6)
    assert model.charge_offset.tolist() == pytest.approx([0.0, 0.7, 0.0])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hardness": {"Xe": 3.0}}, r"equilibration.hardness.*Xe"),
        ({"hardness": {"Na": 0.05}}, "hardness_min"),
        ({"charge_offset": {"Na": 0.5}}, "effective_charges"),
    ],
)
def test_errors_name_the_setting(structures, settings, text):
    model = new_model()
    with pytest.raises(InputError, match=text):
        set_start(model, EquilibrationConfig(**settings), GraphDataset(structures, model))


def test_a_hard_fit_reproduces_the_mean_charges(structures):
    """With a large J, a vanishing network and the fitted shifts give each element's mean."""
    model = new_model(effective_charges=True)
    with torch.no_grad():
        model.electronegativity_stage.readout.scalar.weight.zero_()
    hard = {"O": 1e4, "Na": 1e4, "Cl": 1e4}
    settings = EquilibrationConfig(
        hardness=hard, charge_offset={"Na": 0.3, "Cl": -0.4}, fit_electronegativity=True
    )
    set_start(model, settings, GraphDataset(structures, model))
    assert charge_error(model, structures) < 0.025  # sites differ by 0.02
    assert (model.electronegativity_scales > 10).all()


@pytest.mark.parametrize("change", [{"charges": None}, {"weight": 0.0}])
def test_fits_want_reference_charges(structures, change):
    bare = [replace(s, **change) for s in structures]
    model = new_model()
    data = GraphDataset(bare, model)
    with pytest.raises(InputError, match="reference charges"):
        set_start(model, EquilibrationConfig(fit_electronegativity=True), data)
    config = TrainingConfig(
        {}, DataConfig(("x",)), equilibration=EquilibrationConfig(charge_epochs=2)
    )
    with pytest.raises(InputError, match="reference charges"):
        learn_charges_first(model, config, data, progress=False)
    freeze(model, ["electronegativity_stage"])
    with pytest.raises(InputError, match="charge_epochs: expected 0 with freeze of electron"):
        learn_charges_first(model, config, data, progress=False)


def test_charges_of_elements_stand_in_for_reference_charges(structures):
    """With a large J and a vanishing network they come out, shifted to the total charge."""
    bare = [replace(s, charges=None, total_charge=0.6) for s in structures]
    model = new_model()
    with torch.no_grad():
        model.electronegativity_stage.readout.scalar.weight.zero_()
    settings = EquilibrationConfig(
        hardness={"O": 1e5, "Na": 1e5, "Cl": 1e5},
        charges={"Na": 0.5, "Cl": -0.7},
        fit_electronegativity=True,
    )
    set_start(model, settings, GraphDataset(bare, model))
    expected = np.array([{"Na": 0.5, "Cl": -0.7, "O": 0.0}[s] for s in bare[0].symbols])
    expected += (0.6 - expected.sum()) / len(expected)
    one = bare[0]
    graph = model.build_graph(one.symbols, one.positions, one.cell, one.pbc, one.total_charge)
    charges = model.eval()(graph, compute_forces=False).charges
    np.testing.assert_allclose(charges.detach(), expected, atol=1e-3)


def test_charges_of_elements_need_the_fit():
    with pytest.raises(InputError, match=r"equilibration.charges.*fit_electronegativity"):
        EquilibrationConfig(charges={"Na": 0.5})


def test_charges_first_learns_charges_and_leaves_the_rest(structures, capsys):
    model = new_model()
    settings = EquilibrationConfig(
        hardness={"O": 50.0, "Na": 50.0, "Cl": 50.0}, fit_electronegativity=True,
        charge_epochs=60, charge_lr=0.02,
    )  # fmt: skip
    config = TrainingConfig({}, DataConfig(("x",)), equilibration=settings)
    data = GraphDataset(structures, model)
    set_start(model, settings, data)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    error = charge_error(model, structures)
    learn_charges_first(model.train(), config, data, progress=True)
    assert charge_error(model, structures) < 0.5 * error
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(name.startswith("electronegativity_stage") for name in changed)
    assert "charges first, epoch 60" in capsys.readouterr().out


def test_charges_first_heeds_dipoles_where_the_loss_does(structures):
    """Dipoles that the reference charges do not have are learnt only with a weight for them."""
    dipolar = [
        replace(s, cell=None, pbc=False, dipole=s.charges @ s.positions + np.array([0.3, 0.0, 0.0]))
        for s in structures
    ]
    errors = {}
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        model = new_model()
        settings = EquilibrationConfig(
            hardness={"O": 20.0, "Na": 20.0, "Cl": 20.0}, fit_electronegativity=True,
            charge_epochs=60, charge_lr=0.02,
        )  # fmt: skip
        config = TrainingConfig(
            {},
            DataConfig(("x",)),
            loss=LossConfig(charges=1.0, dipole=weight),
            equilibration=settings,
        )
        data = GraphDataset(dipolar, model)
        set_start(model, settings, data)
        learn_charges_first(model.train(), config, data, progress=False)
        missed = []
        for s in dipolar:
            graph = model.build_graph(s.symbols, s.positions, s.cell, s.pbc, s.total_charge)
            dipole = model.eval()(graph, compute_forces=False).dipole[0].detach().numpy()
            missed.append(dipole - s.dipole)
        errors[weight] = float(np.sqrt(np.square(np.stack(missed)).mean()))
    assert errors[5.0] < 0.5 * errors[0.0]


@pytest.mark.parametrize("options", [{}, {"effective_charges": True}])
def test_kept_matrices_change_nothing(structures, options):
    """Energies, forces, charges, and gradients of a loss on them, with and without."""
    model = new_model(**options)
    if model.charge_offset is not None:
        torch.nn.init.constant_(model.charge_offset[1:2], 0.6)
    kept = GraphDataset(structures, model)[0].graph
    assert kept.linearized[0] is not None
    results = []
    plain = labelled_graph(structures[0], model, "structure").graph
    assert plain.linearized[0] is None
    for graph in (kept, plain):
        output = model(graph)
        loss = output.forces.square().sum() + output.charges.square().sum() + output.energy.sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        results.append([output.energy, output.forces, output.charges, *gradients])
    for one, other in zip(*results, strict=True):
        if one is None:
            assert other is None
            continue
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.fixture
def in_fields(molecule, rng):
    """Molecules in different fields with the charges that a constant χ and hardness give there."""
    model = new_model(num_layers_charge=1)
    result = []
    with torch.no_grad():
        model.electronegativity_shifts.copy_(torch.tensor([1.0, 0.2, 2.0]))
        model.electronegativity_scales.zero_()
        for _ in range(5):
            graph = model.build_graph(
                molecule.numbers, molecule.positions, electric_field=rng.normal(0.0, 0.3, size=3)
            )
            result.append(
                Structure(
                    symbols=tuple(molecule.symbols),
                    positions=molecule.positions,
                    electric_field=graph.electric_field[0].numpy(),
                    charges=model(graph, compute_forces=False).charges.numpy(),
                )
            )
    return result


def test_electronegativities_are_fitted_in_the_field(in_fields):
    """They do not vary: hardly any spread is left."""
    model = new_model(num_layers_charge=1)
    data = GraphDataset(in_fields, model)
    set_start(model, EquilibrationConfig(fit_electronegativity=True), data)
    shifts = model.electronegativity_shifts
    assert (shifts - shifts[0]).tolist() == pytest.approx([0.0, -0.8, 1.0], abs=0.2)
    assert float(model.electronegativity_scales.max()) < 0.2  # 0.5 with the field left out


def test_charges_first_in_the_field(in_fields):
    """A constant χ explains the charges of all fields at once."""
    model = new_model(num_layers_charge=1)
    data = GraphDataset(in_fields, model)
    loss = _Fixed(model, data[0])
    known = model.eval()(data[0].graph, compute_forces=False).charges.detach()
    labels = data[0].labels.charges
    _, error = loss.loss(model, 0.0)
    np.testing.assert_allclose(error, (known - labels).numpy(), atol=1e-10)


def test_charges_first_and_stand_ins_hold_charges_of_groups(molecule):
    model = new_model(num_layers_charge=1).eval()
    groups, held = np.array([1, 1, 1, 0, 0, 0, 1]), np.array([0.5, -1.0])
    structure = Structure(
        symbols=tuple(molecule.symbols),
        positions=molecule.positions,
        charges=np.zeros(7),
        total_charge=-0.5,
        charge_groups=groups,
        group_charges=held,
    )
    item = GraphDataset([structure], model)[0]
    known = model(item.graph, compute_forces=False).charges.detach().numpy()
    np.testing.assert_allclose(np.bincount(groups, known), held, atol=1e-12)
    _, error = _Fixed(model, item).loss(model, 0.0)
    np.testing.assert_allclose(error, known, atol=1e-10)
    stand_in = _stand_in_charges(model, {"Na": 1.0, "Cl": -1.0}, item.graph).numpy()
    np.testing.assert_allclose(np.bincount(groups, stand_in), held, atol=1e-12)
    symbols = np.array(molecule.symbols)
    inside = groups == 1
    alike = stand_in[inside] - np.select([symbols == "Na", symbols == "Cl"], [1, -1])[inside]
    np.testing.assert_allclose(alike, alike[0], atol=1e-12)
