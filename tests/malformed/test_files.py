"""Damaged and hostile files at every door that reads one: a typed error, nothing executed.

The damage is seeded. To extend the suite, add a line to one of the lists.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import random
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from openmm_nequiplr.errors import InputError, ModelFileError, NequIPLRError

_LONGEST_MESSAGE = 3000


def refused(read: Any, what: str, kind: type[Exception] = NequIPLRError, match: str = "") -> None:
    """Fail unless a door refuses its file by a typed error of moderate length."""
    error: Exception | None = None
    try:
        read()
    except Exception as raised:
        error = raised
    assert error is not None, f"{what}: accepted"
    text = str(error)
    assert isinstance(error, kind), f"{what}: {type(error).__name__}: {text}"
    assert len(text) < _LONGEST_MESSAGE, what
    assert re.search(match, text), f"{what}: {text}"


# ---------------------------------------------------------------------------------- model files


@pytest.fixture(scope="module")
def model_bytes(make_model) -> bytes:
    from openmm_nequiplr.model.io import serialize_model

    return serialize_model(make_model(num_layers=1, num_features=2, invariant_neurons=4))


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _joined(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


CONFIGURATIONS: list[tuple[str, Any]] = [
    ("num_features", 10**9), ("num_features", 100_000), ("num_features", 2000),
    ("num_features", -1),
    ("num_features", "many"), ("num_layers", 2000), ("num_layers", 1e9), ("num_layers", 19),
    ("num_layers_charge", 2000), ("l_max", 50), ("l_max", None), ("r_max", 1e9),
    ("r_max", 1e30), ("r_max", -1), ("r_max", "4"), ("r_max", None), ("num_bessels", 10**7),
    ("invariant_neurons", 10**8), ("invariant_layers", 10**4), ("num_charge_basis", 10**8),
    ("type_names", ["H"] * 10**5), ("type_names", [f"E{n}" for n in range(10**4)]),
    ("type_names", []), ("type_names", "H"), ("type_names", [["H"]]), ("type_names", {"H": 1}),
    ("type_names", None), ("gaussian_widths", [1e30, 1, 1]),
    ("gaussian_widths", ["a", "b", "c"]),
    ("electrostatic_energy", []), ("parity", "yes"), ("charge_max", 1e300), ("unheard_of", 1),
    ("nonlinearity_scalars", [1, 2]), ("coulomb_constant", 0), ("hardness_min", -1),
]  # fmt: skip
HEADERS: list[tuple[str, Any]] = [
    ("format", "another"), ("format_version", "9"), ("format_version", "-1"),
    ("format_version", "x"),
    ("format_version", "9" * 5000), ("config", "no JSON"), ("config", "[]"), ("config", "null"),
    ("config", "{}"), ("config", "[" * 100_000), ("config", '{"r_max": NaN}'),
    ("metadata", "no JSON"),
    ("metadata", "[1]"), ("config", None), ("format", None),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CONFIGURATIONS)))
def test_configurations_in_model_files(model_bytes, case):
    from openmm_nequiplr.model.io import deserialize_model

    name, value = CONFIGURATIONS[case]
    header, body = _parts(model_bytes)
    config = json.loads(header["__metadata__"]["config"])
    header["__metadata__"]["config"] = json.dumps({**config, name: value})
    what = f"{name}={value!r:.40}"
    refused(lambda: deserialize_model(_joined(header, body)), what, ModelFileError)


@pytest.mark.parametrize("case", range(len(HEADERS)))
def test_headers_of_model_files(model_bytes, case):
    from openmm_nequiplr.model.io import deserialize_model

    name, value = HEADERS[case]
    header, body = _parts(model_bytes)
    if value is None:
        del header["__metadata__"][name]
    else:
        header["__metadata__"][name] = value
    refused(lambda: deserialize_model(_joined(header, body)), name, ModelFileError)


def test_truncated_and_altered_model_files(model_bytes, tmp_path):
    """Cut anywhere, it is refused; with other bits in its header it is, or is the same model."""
    from openmm_nequiplr import load_model
    from openmm_nequiplr.model.io import deserialize_model

    draw = random.Random(1)
    path = tmp_path / "m.safetensors"
    for _ in range(40):
        data = model_bytes[: draw.randrange(len(model_bytes))]
        refused(lambda: deserialize_model(data), f"{len(data)} bytes", ModelFileError)  # noqa: B023
    for _ in range(5):
        path.write_bytes(model_bytes[: draw.randrange(len(model_bytes))])
        refused(lambda: load_model(path), "a truncated file", ModelFileError)
    header_size = struct.unpack("<Q", model_bytes[:8])[0]
    for _ in range(15):
        data = bytearray(model_bytes)
        data[draw.randrange(8 + header_size)] ^= 1 << draw.randrange(8)
        with contextlib.suppress(ModelFileError):
            deserialize_model(bytes(data))
    for size in (0, 2**40, 2**63):
        data = struct.pack("<Q", size) + model_bytes[8:]
        refused(lambda: deserialize_model(data), f"a header of {size} bytes", ModelFileError)  # noqa: B023


def _damage(tensors: dict[str, torch.Tensor], kind: str, name: str) -> None:
    value = tensors[name]
    if kind == "nan":
        value.view(-1)[-1] = float("nan")
    elif kind == "inf":
        value.view(-1)[0] = float("-inf")
    elif kind == "missing":
        del tensors[name]
    elif kind == "whole":
        tensors[name] = torch.zeros(value.shape, dtype=torch.int64)
    elif kind == "half":
        tensors[name] = value.to(torch.float16)
    elif kind == "longer":
        tensors[name] = torch.cat([value, value])
    elif kind == "extra":
        tensors["stranger"] = torch.zeros(3)


@pytest.mark.parametrize("kind", ["nan", "inf", "missing", "whole", "half", "longer", "extra"])
def test_weights_of_model_files(model_bytes, kind):
    """The message names the tensor."""
    from safetensors.torch import load, save

    from openmm_nequiplr.model.io import deserialize_model

    names = sorted(load(model_bytes))
    for name in random.Random(2).sample(names, 8):
        tensors = load(model_bytes)
        _damage(tensors, kind, name)
        data = save(tensors, _parts(model_bytes)[0]["__metadata__"])
        match = "stranger" if kind == "extra" else re.escape(name)
        refused(lambda: deserialize_model(data), f"{kind} {name}", ModelFileError, match)  # noqa: B023


@pytest.mark.parametrize("model", ["", "absent", "/", 5, None, [], b"m", "\0", "a" * 5000])
def test_what_is_no_model_file(model):
    from openmm_nequiplr import load_model

    refused(lambda: load_model(model), repr(model), ModelFileError)


# ------------------------------------------------------------------------- checkpoints of others

CHECKPOINT = {
    "r_max": 4.0, "l_max": 1, "parity": True, "num_features": 2, "num_layers": 1,
    "num_layers_charge": 1, "qmin": -1, "qmax": 1, "num_categories": 3, "avg_num_neighbors": 5.0,
    "chemical_symbols": ["O", "H"], "invariant_layers": 1, "invariant_neurons": 4,
}  # fmt: skip
KEYS: list[tuple[str, Any]] = [
    *((key, value) for key in ("r_max", "l_max", "num_features", "num_layers", "qmin",
                               "num_categories", "avg_num_neighbors", "invariant_neurons")
      for value in (None, "text", [], -10**9, 10**9, float("nan"))),
    ("chemical_symbols", None), ("chemical_symbols", 5), ("chemical_symbols", [1, 2]),
    ("chemical_symbols", ["Xx"]), ("chemical_symbol_to_type", []),
    ("chemical_symbol_to_type", {"H": "a", "O": None}), ("nonlinearity_type", "norm"),
    ("nonlinearity_scalars", {"e": "silu"}), ("nonlinearity_gates", 3), ("parity", "yes"),
    ("global_rescale_scale", "text"), ("global_rescale_scale", float("inf")), ("pbc", True),
    ("use_sc", 7), ("PolynomialCutoff_p", "six"), ("BesselBasis_trainable", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "w.pth"
    torch.save({"total_energy_with_qeq.to_hardness": torch.ones(2)}, path)
    return path


@pytest.mark.parametrize("case", range(len(KEYS)))
def test_configurations_of_checkpoints(weights, tmp_path, case):
    from openmm_nequiplr.model.convert import convert_checkpoint

    name, value = KEYS[case]
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({**CHECKPOINT, name: value}))
    output = tmp_path / "m.safetensors"
    refused(lambda: convert_checkpoint(config, weights, output), f"{name}={value}", InputError)
    assert not output.exists()


class _Attack:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _checkpoints(mark: Path) -> dict[str, Any]:
    return {
        "code": {"a": _Attack(mark)},
        "a list": [torch.ones(2)],
        "numbers": {"a": 1},
        "no names": {1: torch.ones(1)},
        "one number for a terabyte": {"per_species_rescale.scales": torch.ones(1).expand(2**37)},
        "sparse": {"total_energy_with_qeq.to_chi.weight": torch.eye(2).to_sparse()},
        "complex": {"total_energy_with_qeq.to_chi.weight": torch.ones(2, dtype=torch.complex64)},
        "another shape": {
            "total_energy_with_qeq.to_chi.weight": torch.ones(7),
            "total_energy_with_qeq.to_hardness": torch.ones(7),
        },
        "scales of another number of elements": {"per_species_rescale.scales": torch.ones(5)},
        "a scale of nan": {"scale_by": torch.tensor(float("nan"))},
        "a shift": {"shift_by": torch.tensor(3.0)},
    }


def test_weights_of_checkpoints(tmp_path):
    from openmm_nequiplr.model.convert import convert_checkpoint

    config, path, mark = tmp_path / "c.yaml", tmp_path / "w.pth", tmp_path / "executed"
    config.write_text(yaml.safe_dump(CHECKPOINT))
    for what, content in _checkpoints(mark).items():
        torch.save(content, path)
        refused(lambda: convert_checkpoint(config, path, tmp_path / "m"), what, InputError)
    whole = path.read_bytes()
    draw = random.Random(3)
    for _ in range(10):
        path.write_bytes(whole[: draw.randrange(len(whole))])
        refused(lambda: convert_checkpoint(config, path, tmp_path / "m"), "truncated", InputError)
    for content in (b"", b"text", pickle.dumps(_Attack(mark))):
        path.write_bytes(content)
        refused(lambda: convert_checkpoint(config, path, tmp_path / "m"), "no archive", InputError)
    assert not mark.exists()


# --------------------------------------------------------------------------------- YAML of a user

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = ["", "5", "- a", "a: [", "\t", "!!python/object/apply:os.system ['true']", _BOMB,
         "model: *x",
         "[" * 5000, "data: 5", "data: {train: }", "data: []", "model: {}\ndata: {}"]  # fmt: skip
ENTRIES: list[tuple[str, Any]] = [
    *((name, value) for name in ("batch_size", "max_epochs", "validation_interval", "seed",
                                 "ema_decay", "gradient_clip", "max_time", "num_threads",
                                 "optimizer.lr", "schedule.factor", "precision")
      for value in ("text", [], {}, -1, float("nan")) if (name, value) != ("seed", -1)),
    ("unheard_of", 1), ("optimizer.name", "sgd"), ("schedule.name", 5), ("optimizer", 5),
    ("optimizer.betas", [1]), ("trainer", {"max_epochs": 5}), ("trainer", 5), ("model", 5),
]  # fmt: skip


def test_training_yaml(tmp_path):
    from openmm_nequiplr.training.config import load_config

    path = tmp_path / "t.yaml"
    for text in TEXTS:
        path.write_text(text)
        refused(lambda: load_config(path), text[:40], InputError)
    path.write_text("data: {train: a.xyz}\nmodel: {r_max: 4.0}\n")
    for name, value in ENTRIES:
        refused(lambda n=name, v=value: load_config(path, {n: v}), f"{name}={value}", InputError)


# --------------------------------------------------------------------------------- XML of Systems


@pytest.fixture(scope="module")
def systems(make_model, tmp_path_factory) -> dict[str, str]:
    """XML of one System, as OpenMM writes it and in plain form."""
    import openmm
    from ase import Atoms

    from openmm_nequiplr import create_system
    from openmm_nequiplr.simulation import from_atoms, save_system

    model = make_model(num_layers=1, num_features=2, invariant_neurons=4)
    system = create_system(from_atoms(Atoms("NaCl", [[0, 0, 0], [2.5, 0, 0]])).topology, model)
    path = tmp_path_factory.mktemp("systems") / "plain.xml"
    save_system(system, path)
    return {"openmm": openmm.XmlSerializer.serialize(system), "plain": path.read_text()}


def _call(function: Any, *arguments: Any) -> bytes:
    class Call:
        def __reduce__(self) -> Any:
            return function, arguments

    return pickle.dumps(Call())


def test_pickles_in_systems_are_not_executed(systems, tmp_path):
    from openmm_nequiplr.simulation import deserialize_system, load_system

    mark, path = tmp_path / "executed", tmp_path / "s.xml"
    pickles = [
        _call(Path.touch, mark), _call(exec, f"open({str(mark)!r}, 'w')"), _call(eval, "1"),
        pickle.dumps(_Attack(mark), 0), pickle.dumps({"settings": 1}), b"", b"\x80",
        b"cos\nsystem\n.",
    ]  # fmt: skip
    for data in pickles:
        text = re.sub(r'function="[0-9a-f]*"', f'function="{data.hex()}"', systems["openmm"])
        refused(lambda: deserialize_system(text), repr(data), InputError, "system")  # noqa: B023
        path.write_text(text)
        refused(lambda: load_system(path), repr(data), InputError, "system")
    path.write_text(systems["openmm"])
    refused(lambda: load_system(path), "a pickle of ours", InputError, "PythonForce")
    assert not mark.exists()


def test_damaged_systems(systems, tmp_path):
    from openmm_nequiplr.simulation import deserialize_system, load_system

    draw, path = random.Random(4), tmp_path / "s.xml"
    for kind, read in (("openmm", deserialize_system), ("plain", None)):
        text = systems[kind]
        for _ in range(20):
            cut = text[: draw.randrange(len(text) - 20)]
            path.write_text(cut)
            call = functools.partial(read or (lambda _: load_system(path)), cut)
            refused(call, f"{kind}, {len(cut)} characters", InputError, "system")
    for text in ("", "text", "<a/>", "<System/>", '<System type="System" version="99"/>', 5,
                 '<!DOCTYPE a [<!ENTITY b "c">]><System type="System"/>'):  # fmt: skip
        refused(lambda: deserialize_system(text), repr(text), InputError, "system")  # noqa: B023


PLAIN: list[tuple[str, Any]] = [
    ("symbols", []), ("symbols", ["Na", "Xx"]), ("symbols", 5), ("symbols", ["Na", 5]),
    ("periodic", "yes"), ("total_charge", "1"), ("total_charge", None), ("long_range", "auto"),
    ("precision", "half"), ("device", 5), ("cutoff", "9"), ("tolerance", []), ("skin", -1),
    ("skin", 1e9), ("solver", "magic"), ("charge_tolerance", 0), ("max_iterations", 0),
    ("atoms", [0]),
    ("atoms", [0, 0]), ("atoms", [-1, 0]), ("atoms", "01"), ("unheard_of", 1),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(PLAIN)))
def test_settings_of_plain_systems(systems, tmp_path, case):
    from openmm_nequiplr.simulation import load_system

    name, value = PLAIN[case]
    found = re.search(r"<Settings>(.*)</Settings>", systems["plain"])
    payload = json.loads(found.group(1))
    payload["settings"][name] = value
    path = tmp_path / "s.xml"
    path.write_text(systems["plain"].replace(found.group(1), json.dumps(payload)))
    refused(lambda: load_system(path), f"{name}={value!r}", InputError, name)


def test_forces_of_others_in_plain_systems(systems, tmp_path):
    from openmm_nequiplr.simulation import load_system

    path = tmp_path / "s.xml"
    for kind in ("PythonForce", "TorchForce", "PlumedForce", "System", "XmlSerializer", "", "Vec3"):
        path.write_text(systems["plain"].replace('type="CMMotionRemover"', f'type="{kind}"'))
        refused(lambda: load_system(path), kind, InputError, "system")


# ------------------------------------------------------------------------------------ command line


def _command_lines(folder: Path) -> list[list[str]]:
    junk = {
        name: folder / name for name in ("junk.xyz", "junk.pdb", "junk.yaml", "junk.safetensors")
    }
    for path in junk.values():
        path.write_text("nothing of the kind\n")
    xyz, model, config = (str(junk[f"junk.{e}"]) for e in ("xyz", "safetensors", "yaml"))
    out = str(folder / "out")
    return [
        [], ["unheard-of"], ["info", "absent"], ["info", model], ["info", str(folder)],
        ["md"], ["md", "absent"], ["md", model], ["md", "au2-mgo", str(folder / "absent.xyz")],
        ["md", "au2-mgo", "--steps", "many"], ["md", "au2-mgo", "--steps", "-5", "--output", out],
        ["md", "au2-mgo", "--timestep", "0", "--output", out],
        ["md", "au2-mgo", "--temperature", "nan", "--output", out],
        ["md", "au2-mgo", "--ensemble", "nvu"],
        ["md", "au2-mgo", "--threads", "0", "--output", out],
        ["md", "au2-mgo", "--barostat-axes", "abc", "--output", out],
        ["md", "au2-mgo", "--spread-threshold", "1", "--output", out],
        ["evaluate", "absent", xyz], ["evaluate", model, xyz], ["evaluate", "au2-mgo"],
        ["evaluate", "au2-mgo", str(folder / "absent.xyz")],
        ["evaluate", "au2-mgo", xyz, "--batch-size", "x"],
        ["evaluate", "au2-mgo", xyz, "--precision", "half"],
        ["analyze", "au2-mgo"], ["analyze", "absent", xyz],
        ["analyze", "au2-mgo", str(folder / "absent.dcd")],
        ["export", "au2-mgo", str(folder / "absent.xyz"), "-o", out],
        ["export", "absent", xyz, "-o", out], ["convert", xyz], ["train"], ["train", config],
        ["train", str(folder / "absent.yaml")], ["train", config, "--set", "a"],
        ["train", config, "--seeds", "x"], ["convert", model, "--config", config, "-o", out],
        ["convert", model, "--config", str(folder / "absent.yaml"), "-o", out],
    ]  # fmt: skip


def test_command_lines(tmp_path, monkeypatch):
    """One line on standard error and status 2."""
    from openmm_nequiplr import cli

    monkeypatch.chdir(tmp_path)
    wrong = []
    for words in _command_lines(tmp_path):
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                status: Any = cli.main(words)
        except SystemExit as stop:  # argparse, after its usage
            status = stop.code
        except Exception as error:
            status = f"{type(error).__name__}: {error}"
        lines = errors.getvalue().strip().splitlines()
        if status != 2 or not lines or "error" not in lines[-1]:
            wrong.append(f"{' '.join(words)}: {status}, {lines[-1:]}")
    assert not wrong, "\n".join(wrong)
