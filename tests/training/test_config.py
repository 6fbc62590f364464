"""Training configurations are read, completed and checked."""

from __future__ import annotations

import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.config import load_config, resolve

MINIMAL = """
model: {r_max: 4.0}
data: {train: data.extxyz}
"""


def _load(tmp_path, text: str, overrides: dict | None = None):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides)[0]


def test_defaults(tmp_path):
    config = _load(tmp_path, MINIMAL)
    assert config.data.train == ("data.extxyz",)
    assert config.data.validation == ()
    assert config.loss.weights()["forces"] == 1.0
    assert config.optimizer.name == "adam"
    assert config.max_time is None


def test_sections_and_kinds(tmp_path):
    text = """
model: {r_max: 4.0}
data: {train: [a.xyz, b.xyz], num_validation: 5, num_test: 0.1, keys: {energy: E}}
optimizer: {lr: 1e-3, betas: [0.8, 0.99]}
schedule: {name: plateau, patience: 3}
loss: {charges: 10}
max_epochs: 1e2
trainer: {devices: 2, strategy: ddp}
"""
    config = _load(tmp_path, text)
    assert config.data.train == ("a.xyz", "b.xyz")
    assert (config.data.num_validation, config.data.num_test) == (5, 0.1)
    assert isinstance(config.data.num_validation, int)
    assert config.data.keys.energy == "E"
    assert config.optimizer.lr == 1e-3  # YAML reads 1e-3 as text
    assert config.max_epochs == 100
    assert isinstance(config.max_epochs, int)
    assert config.trainer == {"devices": 2, "strategy": "ddp"}


def test_overrides_dotted_and_nested(tmp_path):
    overrides = {
        "optimizer.lr": 0.1,
        "loss": {"charges": 3.0},
        "model.l_max": 2,
        "max_epochs": 7,
    }
    config = _load(tmp_path, MINIMAL + "loss: {forces: 2.0}\n", overrides)
    assert config.optimizer.lr == 0.1
    assert (config.loss.forces, config.loss.charges) == (2.0, 3.0)
    assert config.model == {"r_max": 4.0, "l_max": 2}
    assert config.max_epochs == 7


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("max_epoch: 3", r"^unknown key 'max_epoch': did you mean 'max_epochs'\?$"),
        ("loss: {force: 3}", r"^unknown key 'force' in loss: did you mean 'forces'\?$"),
        ("loss: {final: {Forces: 3}}", r"^unknown key 'Forces' in loss\.final: did you mean"),
        ("equilibration: {hardnes: {}}", r"'hardnes' in equilibration: did you mean 'hardness'\?$"),
        ("harmonic: {copie: 1}", r"'copie' in harmonic: did you mean 'copies'\?$"),
        (
            "optimizer: {colour: 1}",
            r"'colour' in optimizer: expected one of name, ",
        ),
        (
            "schedule: {name: cosin}",
            r"schedule\.name: expected one of 'constant', 'cosine'.* 'cosine'\?",
        ),
        ("optimizer: {lr: fast}", r"optimizer\.lr: expected a number, got 'fast'"),
        ("optimizer: {lr: 0}", r"optimizer\.lr: expected above 0"),
        ("batch_size: 1.5", r"batch_size: expected a whole number"),
        ("batch_size: 0", r"batch_size: expected at least 1"),
        ("ema_decay: 1.0", r"ema_decay: expected a number in \[0, 1\)"),
        ("loss: {energy_per_atom: 0, forces: 0}", r"loss: expected one weight above zero"),
        ("trainer: {max_epochs: 3}", r"trainer: expected options that have no entry"),
        ("loss: 3", r"loss: expected a mapping"),
        ("precision: half", r"precision: expected one of 'single', 'double'"),
    ],
)
def test_errors_name_key_and_expectation(tmp_path, extra, message):
    with pytest.raises(InputError, match=message):
        _load(tmp_path, MINIMAL + extra)


def test_a_weight_below_zero_is_that_of_a_file(tmp_path):
    given = {"data.test": ["b.xyz", {"path": "c.xyz", "weight": -1}]}
    with pytest.raises(InputError, match=r"^data\.test\.weight of c\.xyz: expected at least 0"):
        _load(tmp_path, MINIMAL, given)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.keys.force", r"^unknown key 'force' in data\.keys: did you mean 'forces'\?$"),
        ("data.units.lenght", r"^unknown key 'lenght' in data\.units: did you mean 'length'\?$"),
        ("lr", r"^unknown key 'lr': did you mean 'optimizer\.lr'\?$"),
        ("num_features", r"^unknown key 'num_features': did you mean 'model\.num_features'\?$"),
        ("loss.max_epochs", r"^unknown key 'max_epochs' in loss: did you mean 'max_epochs'\?$"),
        ("optimizer.forces", r"^unknown key 'forces' in optimizer: expected one of name, lr"),
        ("model.rmax", r"^unknown key 'rmax' in model: did you mean 'r_max'\?$"),
        ("model.r_max_charges", r"^unknown key .* in model: did you mean 'r_max_charge'\?$"),
    ],
)
def test_unknown_keys_deeper_down(tmp_path, key, message):
    with pytest.raises(InputError, match=message):
        _load(tmp_path, MINIMAL, {key: 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {train: a}", "model: expected an entry"),
        ("model: {}\ndata: {}", r"data\.train: expected an entry"),
        ("just text", "a YAML mapping"),
        ("a: [", "valid YAML"),
    ],
)
def test_incomplete_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        _load(tmp_path, text)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"config_path: expected an existing YAML file"):
        load_config(tmp_path / "none.yaml")


def test_data_paths_are_relative_to_the_configuration(tmp_path):
    assert resolve("../data.xyz", tmp_path / "examples" / "a.yaml") == tmp_path / "data.xyz"
    assert resolve(str(tmp_path / "x"), "elsewhere/a.yaml") == tmp_path / "x"


def test_a_run_is_validated_at_least_once(tmp_path):
    with pytest.raises(InputError, match="validation_interval: expected at most max_epochs = 2"):
        _load(tmp_path, MINIMAL, {"max_epochs": 2, "validation_interval": 3})
    with pytest.warns(UserWarning, match="warmup_epochs: 3 epochs are more than max_epochs = 2"):
        _load(tmp_path, MINIMAL, {"max_epochs": 2, "schedule.warmup_epochs": 3})
