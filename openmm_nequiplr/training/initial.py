"""Initial model of a training: a new one, or one that was trained before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..console import say
from ..data.sequences import chained
from ..data.structure import Structure
from ..errors import InputError, describe, unknown
from ..model import ModelConfig, NequIPLRPotential, load_model
from ..model.transfer import with_elements
from .config import EquilibrationConfig, TrainingConfig, load_config, model_file, resolve
from .statistics import (
    charge_range,
    elements_of,
    fit_energy_scales,
    fit_energy_shifts,
    mean_num_neighbors,
    shortest_distances,
)

#: Defaults of new models. With the choices of the paper, which are the defaults of `ModelConfig`,
#: the energy is unbounded where the network extrapolates.
SAFE_DEFAULTS: dict[str, Any] = {
    "electrostatic_energy": "coulomb",
    "electronegativity_bound": 6.0,
    "zbl": True,
    "shortest_distances": "auto",
}


def new_model(
    config: TrainingConfig,
    train: Sequence[Structure],
    others: Sequence[Structure],
    copies: Sequence[Structure] = (),
) -> NequIPLRPotential:
    """Model with random weights.

    Parameters
    ----------
    config : TrainingConfig
    train, others : sequence of Structure
        Elements are taken from both, all other properties from the training structures.
    copies : sequence of Structure
        Harmonic copies, which count for the shortest distances.

    Raises
    ------
    InputError
        If an entry of ``model`` is unknown or missing.
    """
    options = dict(config.model)
    if "r_max" not in options:
        raise InputError(describe("model.r_max", "nothing", "a cutoff in Å"))
    for name, value in SAFE_DEFAULTS.items():
        options.setdefault(name, value)
    types = options.get("type_names") or elements_of(chained([train, others]))
    options["type_names"] = tuple(types)
    for name, value in zip(("charge_min", "charge_max"), charge_range(train), strict=True):
        if options.get(name, "auto") == "auto":
            options[name] = round(value, 4)
    if options.get("avg_num_neighbors", "auto") == "auto":
        options["avg_num_neighbors"] = round(mean_num_neighbors(train, options["r_max"]), 4)
    if options["shortest_distances"] == "auto":
        cutoff = min(options["r_max"], options.get("r_max_charge") or options["r_max"])
        table = shortest_distances(chained([train, copies]), options["type_names"], cutoff)
        options["shortest_distances"] = table.round(4).tolist()
    torch.manual_seed(config.seed)
    return NequIPLRPotential(ModelConfig.from_dict(options))


def earlier_configs(config: TrainingConfig, config_path: str | Path) -> dict[Path, TrainingConfig]:
    """Chain of configurations specified by ``start_from``, by file; the last one is trained first.

    Raises
    ------
    InputError
        If one of them is not a configuration, or the chain is circular.
    """
    found: dict[Path, TrainingConfig] = {}
    own = Path(config_path).resolve()
    while config.start_from is not None and Path(config.start_from).suffix in (".yaml", ".yml"):
        path = resolve(config.start_from, config_path)
        if path in (own, *found):
            raise InputError(describe("start_from", str(path), "a training that comes before"))
        config, config_path = load_config(path)[0], path
        found[path] = config
    return found


def earlier_model(
    config: TrainingConfig, config_path: str | Path, structures: Sequence[Structure]
) -> NequIPLRPotential:
    """Model of ``start_from``, extended by the elements that it lacks.

    Parameters
    ----------
    config : TrainingConfig
    config_path : path
    structures : sequence of Structure
        All structures of the training.

    Raises
    ------
    ModelFileError
        If there is no such model.
    InputError
        If entries of ``model`` contradict the model, or ``equilibration`` has entries.
    """
    assert config.start_from is not None
    model = load_model(model_file(config.start_from, config_path, "start_from"))
    own = model.config.to_dict()
    for name, value in config.model.items():
        if value != "auto" and ModelConfig.from_dict({**own, name: value}) != model.config:
            raise InputError(describe(f"model.{name}", value, f"{own[name]}, as in start_from"))
    if config.equilibration != EquilibrationConfig():
        expected = "nothing with start_from, which has charges already"
        raise InputError(describe("equilibration", config.equilibration, expected))
    torch.manual_seed(config.seed)
    new = [e for e in elements_of(structures) if e not in model.config.type_names]
    return _with_elements(model, new, structures) if new else model


def _with_elements(
    model: NequIPLRPotential, symbols: Sequence[str], structures: Sequence[Structure]
) -> NequIPLRPotential:
    """Model with new elements, whose shortest distances are taken from the data."""
    config, table = model.config, None
    if config.shortest_distances is not None:
        names, known = (*config.type_names, *symbols), len(config.type_names)
        cutoff = min(config.r_max, config.charge_cutoff)
        table = shortest_distances(structures, names, cutoff).round(4)
        table[:known, :known] = config.shortest_distances
        table = table.tolist()
    say(f"start_from: elements {' '.join(symbols)} are new, their weights start at random")
    return with_elements(model, symbols, table)


def freeze(model: NequIPLRPotential, names: Sequence[str]) -> None:
    """Exclude parameters from the training, in place.

    Parameters
    ----------
    model : NequIPLRPotential
    names : sequence of str
        Names of modules or parameters of the model, such as ``electronegativity_stage``.

    Raises
    ------
    InputError
        If there is no such part, or no parameter remains to be trained.
    """
    parameters = dict(model.named_parameters())
    parts = {n.rsplit(".", k)[0] for n in parameters for k in range(n.count(".") + 1)}
    for name in names:
        if name not in parts:
            raise InputError(unknown("freeze", name, sorted(p for p in parts if "." not in p)))
        for own, parameter in parameters.items():
            if own == name or own.startswith(f"{name}."):
                parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise InputError(describe("freeze", list(names), "parts that leave something to train"))


def fit_energies(
    model: NequIPLRPotential, config: TrainingConfig, train: Sequence[Structure]
) -> None:
    """Fit the energy shifts, and the scales of a new model, to the training set."""
    types, settings = model.config.type_names, config.data
    values = {"shifts": fit_energy_shifts(train, types, settings.energy_shifts)}
    if config.start_from is None:
        values["scales"] = fit_energy_scales(train, types, settings.per_species_scales)
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            buffers[f"energy_{name}"].copy_(torch.from_numpy(value))
