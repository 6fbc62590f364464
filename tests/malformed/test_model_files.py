"""Damaged and hostile model files and checkpoints: a typed error, nothing executed.

The damage is seeded. To extend the suite, add a line to one of the lists.
"""

from __future__ import annotations

import contextlib
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

from openmm_nequiplr.errors import InputError, ModelFileError

from .refusal import Attack, refused

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


def _checkpoints(mark: Path) -> dict[str, Any]:
    return {
        "code": {"a": Attack(mark)},
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
    for content in (b"", b"text", pickle.dumps(Attack(mark))):
        path.write_bytes(content)
        refused(lambda: convert_checkpoint(config, path, tmp_path / "m"), "no archive", InputError)
    assert not mark.exists()
