"""Conversion of checkpoints of the authors' nequip-charge code to model files.

Per-species shifts and scales are stored in scaled units in these checkpoints. The energy of the
network is E = Σ(scale e + shift) + E'. In evaluation mode, but not in training mode, nequip
multiplies it by s = ``global_rescale_scale``. Non-periodic runs do not divide E' by s, so χ, J and
the Coulomb constant have the factor of E. Periodic runs (with ``use_ewald_scaling``) divide E_QEq,
which is in eV, by s.

A configuration file in JSON may contain ``records`` with results of that code in addition to
``config``; these determine whether s was applied.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checks import is_number
from ..errors import InputError, ModelFileError, describe
from ..units import COULOMB_CONSTANT
from ..yaml_files import read_yaml
from .config import ModelConfig
from .io import load_weights, save_model
from .potential import NequIPLRPotential

#: Defaults of the authors' code for keys that are missing in its configuration.
_DEFAULTS: dict[str, Any] = {
    "num_layers": 3,
    "num_layers_charge": 3,
    "num_basis": 8,
    "BesselBasis_trainable": True,
    "PolynomialCutoff_p": 6,
    "invariant_layers": 1,
    "invariant_neurons": 8,
    "use_sc": True,
    "resnet": False,
    "pbc": False,
    "use_ewald_scaling": False,
    "nonlinearity_type": "gate",
    "nonlinearity_scalars": {"e": "silu", "o": "tanh"},
    "nonlinearity_gates": {"e": "silu", "o": "tanh"},
}
_RENAMED = (
    (r"^radial_basis\.basis\.", "electronegativity_stage.convolutions.radial_basis.basis."),
    (r"^radial_basis2\.basis\.", "energy_stage.convolutions.radial_basis.basis."),
    (r"^chemical_embedding\.linear\.", "electronegativity_stage.convolutions.embedding."),
    (r"^chemical_charge_embedding\.linear\.", "energy_stage.convolutions.embedding."),
    (r"^layer(\d+)_convnet\.", r"electronegativity_stage.convolutions.layers.\1."),
    (r"^layer(\d+)_charge_convnet\.", r"energy_stage.convolutions.layers.\1."),
    (r"^before_charge_prediction\.linear\.", "electronegativity_stage.readout.hidden."),
    (r"^total_energy_with_qeq\.to_chi\.", "electronegativity_stage.readout.scalar."),
    (r"^conv_to_output_hidden\.linear\.", "energy_stage.readout.hidden."),
    (r"^output_hidden_to_scalar\.linear\.", "energy_stage.readout.scalar."),
    (r"^total_energy_with_qeq\.to_hardness$", "hardness_parameter"),
)
_LARGEST_ARCHIVE = 4 * 2**30
#: Tensors of the checkpoint that are not weights: derived from the configuration.
_DERIVED = re.compile(r"(\.output_mask|\._w3j_\w+|\.tp\.weight|\.mul\.weight)$")


def convert_checkpoint(
    config_path: str | os.PathLike,
    weights_path: str | os.PathLike,
    output: str | os.PathLike,
    legacy_periodic: bool = False,
    corrected_periodic: bool = False,
    global_rescale: bool | None = None,
) -> NequIPLRPotential:
    """Convert a checkpoint and write the model file, in float64.

    Parameters
    ----------
    config_path : path
        YAML of the authors' code, or JSON with that configuration under ``config``.
    weights_path : path
        State dictionary of tensors (``.pth``), read without executing pickled code.
    output : path
        Model file to write.
    legacy_periodic : bool
        Reproduce the defects of the published periodic code.
    corrected_periodic : bool
        State that the periodic checkpoint comes from a corrected code.
    global_rescale : bool, optional
        Multiply the energy by ``global_rescale_scale``, as nequip does in evaluation mode. By
        default according to the ``records`` in the file; without records yes for YAML and no for
        JSON.

    Returns
    -------
    NequIPLRPotential
        The converted model, in evaluation mode and float64.

    Raises
    ------
    InputError
        If a key is missing or not supported, or neither option is given for a periodic checkpoint.
    ModelFileError
        If the weights cannot be read or do not match the configuration.
    """
    source, records = _read_config(Path(config_path))
    weights = _read_weights(Path(weights_path))
    _check_periodic(source, legacy_periodic, corrected_periodic)
    if global_rescale is not None:
        choices = [global_rescale]
    elif records:
        choices = [True, False]
    else:
        choices = [Path(config_path).suffix.lower() != ".json"]
    models = [_build(source, weights, legacy_periodic, rescale) for rescale in choices]
    model = min(models, key=lambda m: _deviation(m, records[0])) if len(models) > 1 else models[0]
    model.metadata = {
        "converted_from": f"nequip-charge checkpoint {Path(weights_path).name}",
        "periodic": str(bool(source["pbc"])),
    }
    save_model(model, output)
    return model


def _build(
    source: dict[str, Any], weights: dict[str, torch.Tensor], legacy: bool, rescale: bool
) -> NequIPLRPotential:
    scale = _global_scale(source, weights)
    total = scale if rescale else 1.0
    in_ev = bool(source["pbc"]) and bool(source["use_ewald_scaling"])
    factor = total / scale if in_ev else total
    config = _model_config(source, factor * COULOMB_CONSTANT, legacy)
    model = NequIPLRPotential(config).double()
    tensors = _rename(weights)
    try:
        tensors["electronegativity_stage.readout.scalar.weight"] *= factor
        tensors["hardness_parameter"] *= factor**0.5
    except KeyError as error:
        expected = "a nequip-charge checkpoint with total_energy_with_qeq.to_chi and to_hardness"
        raise ModelFileError(describe("weights", f"none called {error}", expected)) from error
    scales, shifts = _scales_and_shifts(weights, len(config.type_names), total)
    tensors["energy_scales"], tensors["energy_shifts"] = scales, shifts
    _copy(model, tensors)
    return model.eval()


def _deviation(model: NequIPLRPotential, record: dict[str, Any]) -> float:
    """Deviation of the energy of a model from a stored result, eV."""
    try:
        graph = model.build_graph(
            record["numbers"],
            np.array(record["positions"], dtype=np.float64),
            np.array(record["cell"], dtype=np.float64),
            record["pbc"],
            float(record["total_charge"]),
        )
        energy = float(record["energy"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        expected = "numbers, positions, cell, pbc, total_charge and energy in each"
        raise InputError(describe("config: records", got, expected)) from error
    return abs(model(graph, compute_forces=False).energy.item() - energy)


def _read_config(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    values = read_yaml(path, "config")
    records: list[dict[str, Any]] = []
    if isinstance(values, dict) and isinstance(values.get("config"), dict):
        records = values.get("records") or []
        if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
            raise InputError(describe("config: records", records, "a list of results"))
        values = values["config"]
    if not isinstance(values, dict):
        raise InputError(describe("config", type(values).__name__, "a mapping of keys to values"))
    return {**_DEFAULTS, **values}, records


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        _check_archive(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except ModelFileError:
        raise
    except Exception as error:  # torch raises many types for damaged files
        raise ModelFileError(f"weights: {path} cannot be read: {error}") from error
    values = values.get("state_dict", values) if isinstance(values, dict) else values
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in values.items()
    ):
        raise ModelFileError(describe("weights", str(path), "a dictionary of tensors"))
    for name, value in values.items():
        if not _is_stored(value):
            got = f"{value.layout} of shape {tuple(value.shape)}, {value.dtype}"
            expected = "a dense tensor of real numbers, all of them in the file"
            raise ModelFileError(describe(f"weights: {name}", got, expected))
    return {re.sub(r"^(model\.)*(func\.)?", "", k): v for k, v in values.items()}


def _check_archive(path: Path) -> None:
    """Raise an error for an archive that is too large after unpacking."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _LARGEST_ARCHIVE:
        got = f"{path}, which unpacks to {size / 2**30:.1f} GiB"
        raise ModelFileError(describe("weights", got, f"at most {_LARGEST_ARCHIVE // 2**30} GiB"))


def _is_stored(value: torch.Tensor) -> bool:
    """Whether a tensor is dense and fully stored, and not a view that repeats a few numbers."""
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex():
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _check_periodic(source: dict[str, Any], legacy: bool, corrected: bool) -> None:
    if legacy and corrected:
        expected = "one of the two options, not both"
        raise InputError(describe("--legacy-periodic, --corrected-periodic", "both", expected))
    if not source["pbc"]:
        if legacy or corrected:
            name = "--legacy-periodic" if legacy else "--corrected-periodic"
            raise InputError(describe(name, "a non-periodic checkpoint", "one with pbc: true"))
        return
    if not (legacy or corrected):
        raise InputError(
            "config: pbc: true, and the published nequip-charge code evaluates periodic cells with "
            "a lattice sum that visits only one distant image (so atoms do not interact) and omits "
            "χ·Q from the energy. Pass --legacy-periodic to reproduce exactly this, or "
            "--corrected-periodic if the checkpoint comes from a corrected code."
        )


def _type_names(source: dict[str, Any]) -> list[str]:
    types = source.get("chemical_symbol_to_type")
    if types is not None:
        if not isinstance(types, dict) or sorted(types.values(), key=str) != [
            *map(int, range(len(types)))
        ]:
            expected = "element symbols and their types 0, 1, …"
            raise InputError(describe("config: chemical_symbol_to_type", types, expected))
        return sorted(types, key=types.__getitem__)
    names = source.get("chemical_symbols") or source.get("type_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(describe("config: chemical_symbols", names, "a list of element symbols"))
    from ase.data import atomic_numbers

    # the authors' code sorts chemical_symbols by atomic number
    return sorted(names, key=lambda name: atomic_numbers.get(name, 0))


def _model_config(source: dict[str, Any], constant: float, legacy: bool) -> ModelConfig:
    required = ("r_max", "l_max", "parity", "num_features", "qmin", "qmax", "num_categories")
    missing = [key for key in (*required, "avg_num_neighbors") if key not in source]
    if missing:
        raise InputError(describe("config", f"no {', '.join(missing)}", "these keys"))
    if not is_number(source["avg_num_neighbors"]):
        expected = "the number that training computed (it is not among the weights)"
        got = source["avg_num_neighbors"]
        raise InputError(describe("config: avg_num_neighbors", got, expected))
    if source["nonlinearity_type"] != "gate":
        got = source["nonlinearity_type"]
        raise InputError(describe("config: nonlinearity_type", got, "'gate'"))
    for key in ("nonlinearity_scalars", "nonlinearity_gates"):
        if not isinstance(source[key], dict) or not {"e", "o"} <= set(source[key]):
            raise InputError(describe(f"config: {key}", source[key], "entries 'e' and 'o'"))
    scalars, gates = source["nonlinearity_scalars"], source["nonlinearity_gates"]
    alike = (
        *("r_max", "num_layers", "num_layers_charge", "l_max", "parity", "num_features"),
        *("invariant_layers", "invariant_neurons", "use_sc", "resnet"),
    )
    return ModelConfig(
        **{name: source[name] for name in alike},
        type_names=tuple(_type_names(source)),
        avg_num_neighbors=float(source["avg_num_neighbors"]),
        num_bessels=source["num_basis"],
        bessel_trainable=source["BesselBasis_trainable"],
        polynomial_cutoff_p=source["PolynomialCutoff_p"],
        charge_min=source["qmin"],
        charge_max=source["qmax"],
        num_charge_basis=source["num_categories"],
        coulomb_constant=constant,
        hardness_min=0.0,
        nonlinearity_scalars=(scalars["e"], scalars["o"]),
        nonlinearity_gates=(gates["e"], gates["o"]),
        scalar_last_layer=False,
        legacy_periodic=legacy,
        legacy_nonperiodic=not source["pbc"],
        legacy_ewald_cutoff=bool(source["pbc"]),
    )


def _global_scale(source: dict[str, Any], weights: dict[str, torch.Tensor]) -> float:
    stored = weights.get("scale_by")
    value = source.get("global_rescale_scale", 1.0)
    if stored is not None and stored.numel() == 1:
        value = float(stored)
    if value is None:
        return 1.0
    if not is_number(value) or value <= 0:
        expected = "a positive number, or scale_by among the weights"
        raise InputError(describe("config: global_rescale_scale", value, expected))
    return float(value)


def _scales_and_shifts(
    weights: dict[str, torch.Tensor], count: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-species scales and shifts in eV, float64, shape (count,)."""
    results = []
    for name, default in (("scales", 1.0), ("shifts", 0.0)):
        value = weights.get(f"per_species_rescale.{name}")
        if value is None or value.numel() == 0:
            value = torch.tensor([default])
        if value.numel() not in (1, count):
            got = f"{value.numel()} numbers"
            expected = f"one, or one for each of {count} elements"
            raise ModelFileError(describe(f"weights: per_species_rescale.{name}", got, expected))
        results.append(scale * value.to(torch.float64).reshape(-1).expand(count).clone())
    shift_by = weights.get("shift_by")
    if shift_by is not None and shift_by.numel() and bool((shift_by != 0).any()):
        expected = "none: a shift of the total energy is not a sum over atoms"
        raise InputError(describe("weights: shift_by", shift_by.tolist(), expected))
    return results[0], results[1]


def _rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in _RENAMED:
            new, hits = re.subn(pattern, replacement, name)
            if hits:
                renamed[new] = value.to(torch.float64).clone()
                break
    return renamed


def _copy(model: NequIPLRPotential, tensors: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    tensors = {k: v for k, v in tensors.items() if not _DERIVED.search(k) and v.numel()}
    for name in ("electronegativity_scales", "electronegativity_shifts"):
        tensors[name] = state[name]
    try:
        load_weights(model, tensors)
    except InputError as error:
        raise ModelFileError(f"weights: they do not match the configuration: {error}") from error
