"""Model files: round trips, headers, and files that are not ours."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from openmm_nequiplr.errors import InputError, ModelFileError
from openmm_nequiplr.model import Evaluator, load_model, save_model, shipped_structure
from openmm_nequiplr.model.io import FORMAT_VERSION, deserialize_model, serialize_model


def energy(model, atoms):
    graph = model.build_graph(atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc)
    return Evaluator(model)(graph).energy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(make_model, crystal, tmp_path, dtype):
    import copy

    model = copy.deepcopy(make_model(l_max=2)).to(dtype)
    save_model(model, tmp_path / "deep" / "m.safetensors", {"data": "generated"})
    again = load_model(tmp_path / "deep" / "m.safetensors")
    assert again.config == model.config
    assert again.dtype == dtype
    assert not again.training
    assert again.metadata["data"] == "generated"
    assert energy(again, crystal) == energy(model, crystal)
    assert energy(deserialize_model(serialize_model(model)), crystal) == energy(model, crystal)
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "m.safetensors"]


def test_header_is_readable_without_the_package(make_model, tmp_path):
    save_model(make_model(), tmp_path / "m.safetensors")
    with safe_open(str(tmp_path / "m.safetensors"), framework="np") as file:
        header = file.metadata()
    assert header["format_version"] == str(FORMAT_VERSION)
    assert json.loads(header["config"])["r_max"] == 3.5


def test_files_of_the_first_version(make_model, tmp_path, crystal):
    """They have whole last layers, and electronegativities without shift and scale."""
    model = make_model(scalar_last_layer=False)
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    with safe_open(str(path), framework="pt") as file:
        header = dict(file.metadata())
        tensors = {
            name: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if name not in ("electronegativity_shifts", "electronegativity_scales")
        }
    config = json.loads(header["config"])
    del config["scalar_last_layer"], config["effective_charges"]
    save_file(tensors, path, {**header, "config": json.dumps(config), "format_version": "1"})
    again = load_model(path)
    assert again.config == model.config
    assert energy(again, crystal) == energy(model, crystal)


def test_dtype_can_be_chosen(make_model, tmp_path):
    save_model(make_model(), tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors", dtype=torch.float32).dtype == torch.float32


def test_files_that_are_not_ours(make_model, tmp_path):
    with pytest.raises(ModelFileError, match="shipped model .*got 'nowhere'"):
        load_model("nowhere")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        load_model(tmp_path / "text")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="save_model"):
        load_model(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="shipped model"):
        shipped_structure("nowhere")


@pytest.mark.parametrize("damage", ["version", "missing", "extra"])
def test_damaged_files(make_model, tmp_path, damage):
    path = tmp_path / "m.safetensors"
    save_model(make_model(), path)
    with safe_open(str(path), framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if damage == "version":
        header["format_version"] = str(FORMAT_VERSION + 1)
    elif damage == "missing":
        del tensors["energy_stage.readout.hidden.weight"]
    else:
        tensors["stranger"] = torch.zeros(1)
    save_file(tensors, path, header)
    words = {"version": "upgrade", "missing": "readout", "extra": "stranger"}
    with pytest.raises(ModelFileError, match=words[damage]):
        load_model(path)
