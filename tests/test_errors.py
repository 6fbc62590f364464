"""Messages that name what may have been meant."""

from __future__ import annotations

import pytest

from openmm_nequiplr.checks import check_choice
from openmm_nequiplr.data import DataUnits
from openmm_nequiplr.errors import InputError, ModelFileError, closest, unknown
from openmm_nequiplr.model import ModelConfig, load_model, save_model, shipped_structure

NAMES = ("r_max", "r_max_charge", "num_layers")


@pytest.mark.parametrize(
    ("got", "name"),
    [
        ("rmax", "r_max"),
        ("R_MAX", "r_max"),
        ("numlayers", "num_layers"),
        ("colour", None),
        ("", None),
    ],
)
def test_closest(got, name):
    assert closest(got, NAMES) == name


def test_unknown_names_the_place_and_the_closest():
    message = unknown("key", "rmax", NAMES, "model")
    assert message == "unknown key 'rmax' in model: did you mean 'r_max'?"
    everything = "unknown key 'colour': expected one of r_max, r_max_charge, num_layers"
    assert unknown("key", "colour", NAMES) == everything
    assert unknown("key", 3, NAMES).startswith("unknown key 3: expected one of")


def test_choices_and_units():
    with pytest.raises(InputError, match=r"'dense', got 'densee'; did you mean 'dense'\?$"):
        check_choice("solver", "densee", ("auto", "dense"))
    with pytest.raises(InputError, match=r"got 'angstrm'; did you mean 'angstrom'\?$"):
        DataUnits("angstrm", "eV")


def test_names_of_models(make_model, tmp_path):
    with pytest.raises(ModelFileError, match=r"^no model 'au2mgo': did you mean 'au2-mgo'\?$"):
        load_model("au2mgo")
    with pytest.raises(InputError, match=r"did you mean 'carbon-chain'\?$"):
        shipped_structure("carbon_chain")
    with pytest.raises(InputError, match=r"'rmax' in model configuration: did you mean 'r_max'"):
        ModelConfig.from_dict({"type_names": ("H",), "rmax": 4.0})
    save_model(make_model(), tmp_path / "water.safetensors")
    for got in ("watr.safetensors", "water.safetensor", "Water"):
        with pytest.raises(ModelFileError, match=r"did you mean '.*/water\.safetensors'\?$"):
            load_model(tmp_path / got)
    # the ending alone makes no names alike, and shipped models are in no directory
    for got in (tmp_path / "absent.safetensors", tmp_path / "au2mgo"):
        with pytest.raises(ModelFileError, match="expected a model file or a shipped model"):
            load_model(got)
