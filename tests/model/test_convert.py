"""Converted checkpoints against results of the code they come from, where those are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from openmm_nequiplr.errors import InputError, ModelFileError
from openmm_nequiplr.model import Evaluator, load_model
from openmm_nequiplr.model.convert import convert_checkpoint

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
FIXTURES = sorted(path.stem for path in REFERENCE.glob("*.json"))
needs_reference = pytest.mark.skipif(not FIXTURES, reason="reference results are not at hand")


def options(name):
    legacy = name.endswith("legacy")
    return {"legacy_periodic": legacy, "corrected_periodic": "periodic" in name and not legacy}


@needs_reference
@pytest.mark.parametrize("name", FIXTURES)
def test_reference_results(name, tmp_path):
    paths = REFERENCE / f"{name}.json", REFERENCE / f"{name}.pth", tmp_path / "m.safetensors"
    convert_checkpoint(*paths, **options(name))
    model = load_model(paths[2])
    evaluator = Evaluator(model)
    for record in json.loads(paths[0].read_text(encoding="utf-8"))["records"]:
        graph = model.build_graph(
            record["numbers"],
            np.array(record["positions"]),
            np.array(record["cell"]),
            record["pbc"],
            record["total_charge"],
        )
        result = evaluator(graph)
        assert result.energy == pytest.approx(record["energy"], abs=1e-8)
        assert result.forces == pytest.approx(np.array(record["forces"]), abs=1e-8)
        assert result.charges == pytest.approx(np.array(record["charges"]), abs=1e-9)
        slow = model(graph)
        assert slow.forces.numpy() == pytest.approx(np.array(record["forces"]), abs=1e-8)


CONFIG = {
    "r_max": 4.0, "l_max": 1, "parity": True, "num_features": 4, "num_layers": 1,
    "num_layers_charge": 1, "qmin": -1, "qmax": 1, "num_categories": 3,
    "avg_num_neighbors": 5.0, "chemical_symbols": ["O", "H"], "global_rescale_scale": 2.0,
    "invariant_layers": 1, "invariant_neurons": 4,
}  # fmt: skip


def write_checkpoint(folder, make_model, **changes):
    """A checkpoint in the authors' layout, made from a model of ours."""
    model = make_model(
        type_names=("H", "O"), r_max=4.0, num_layers=1, num_charge_basis=3, avg_num_neighbors=5.0,
        invariant_layers=1, invariant_neurons=4, hardness_min=0.0, legacy_nonperiodic=True,
        scalar_last_layer=False,
    )  # fmt: skip
    names = {
        "electronegativity_stage.convolutions.radial_basis.basis": "radial_basis.basis",
        "energy_stage.convolutions.radial_basis.basis": "radial_basis2.basis",
        "electronegativity_stage.convolutions.embedding": "chemical_embedding.linear",
        "energy_stage.convolutions.embedding": "chemical_charge_embedding.linear",
        "electronegativity_stage.convolutions.layers.0": "layer0_convnet",
        "energy_stage.convolutions.layers.0": "layer0_charge_convnet",
        "electronegativity_stage.readout.hidden": "before_charge_prediction.linear",
        "electronegativity_stage.readout.scalar": "total_energy_with_qeq.to_chi",
        "energy_stage.readout.hidden": "conv_to_output_hidden.linear",
        "energy_stage.readout.scalar": "output_hidden_to_scalar.linear",
        "hardness_parameter": "total_energy_with_qeq.to_hardness",
        "energy_shifts": "per_species_rescale.shifts",
        "energy_scales": "per_species_rescale.scales",
    }
    weights = {"model.scale_by": torch.tensor(2.0)}
    for key, value in model.state_dict().items():
        if key.startswith(("electronegativity_shifts", "electronegativity_scales")):
            continue  # the authors' code has none
        old = next(old for old in names if key.startswith(old))
        weights["model.model.func." + names[old] + key[len(old) :]] = value
    torch.save(weights, folder / "w.pth")
    (folder / "c.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    return model, (folder / "c.yaml", folder / "w.pth", folder / "m.safetensors")


@pytest.mark.parametrize("rescale", [True, False])
def test_global_scale_multiplies_the_energy(make_model, tmp_path, rescale):
    """Types in order of atomic number; everything in eV carries the factor, charges do not."""
    ours, paths = write_checkpoint(tmp_path, make_model)
    convert_checkpoint(*paths, global_rescale=None if rescale else False)
    theirs = load_model(paths[2])
    positions = np.array([[0.0, 0.0, 0.1], [0.9, 0.1, 0.0], [-0.3, 0.9, 0.2]])
    before, after = (
        Evaluator(m)(m.build_graph(["O", "H", "H"], positions, total_charge=1.0))
        for m in (ours, theirs)
    )
    factor = 2.0 if rescale else 1.0
    assert after.energy == pytest.approx(factor * before.energy, rel=1e-12)
    assert after.forces == pytest.approx(factor * before.forces, abs=1e-10)
    assert after.charges == pytest.approx(before.charges, abs=1e-12)
    assert theirs.config.coulomb_constant == pytest.approx(factor * ours.config.coulomb_constant)


def test_periodic_checkpoints_need_a_word(make_model, tmp_path):
    _, paths = write_checkpoint(tmp_path, make_model, pbc=True, use_ewald_scaling=True)
    with pytest.raises(InputError, match="--legacy-periodic"):
        convert_checkpoint(*paths)
    assert not paths[2].exists()
    with pytest.raises(InputError, match="not both"):
        convert_checkpoint(*paths, legacy_periodic=True, corrected_periodic=True)
    assert convert_checkpoint(*paths, legacy_periodic=True).config.legacy_periodic
    repaired = convert_checkpoint(*paths, corrected_periodic=True).config
    assert not repaired.legacy_periodic
    assert repaired.coulomb_constant == pytest.approx(14.399645478)


def test_flags_for_periodic_codes_are_refused_without_periodicity(make_model, tmp_path):
    _, paths = write_checkpoint(tmp_path, make_model)
    with pytest.raises(InputError, match="--legacy-periodic: expected .*pbc: true"):
        convert_checkpoint(*paths, legacy_periodic=True)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"avg_num_neighbors": "auto"}, "avg_num_neighbors"),
        ({"nonlinearity_type": "norm"}, "nonlinearity_type"),
        ({"chemical_symbols": None}, "chemical_symbols"),
        ({"qmin": None}, "charge_min"),
    ],
)
def test_configurations_that_cannot_be_converted(make_model, tmp_path, change, word):
    _, paths = write_checkpoint(tmp_path, make_model, **change)
    with pytest.raises(InputError, match=word):
        convert_checkpoint(*paths)


def test_weights_that_do_not_fit(make_model, tmp_path):
    _, paths = write_checkpoint(tmp_path, make_model, num_features=8)
    with pytest.raises(ModelFileError, match="do not match"):
        convert_checkpoint(*paths)
    paths[1].write_bytes(b"no tensors")
    with pytest.raises(ModelFileError, match="cannot be read"):
        convert_checkpoint(*paths)
