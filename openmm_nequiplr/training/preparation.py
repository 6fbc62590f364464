"""What a training needs before it begins: structures, divided; the model; graphs and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.dataset import GraphDataset
from ..data.reading import read_structures
from ..data.split import Split, random_split
from ..data.structure import Structure
from ..errors import InputError, describe
from ..model import NequIPLRPotential
from .config import EquilibrationConfig, TrainingConfig, resolve
from .harmonic import harmonic_copies
from .initial import earlier_model, fit_energies, new_model
from .start import set_start


@dataclass(frozen=True)
class Parts:
    """The structures of a training, divided.

    Parameters
    ----------
    train, validation, test : list of Structure
    split : Split or None
        Which structures of the files they are.
    """

    train: list[Structure]
    validation: list[Structure]
    test: list[Structure]
    split: Split | None


def read_parts(config: TrainingConfig, config_path: str | Path) -> Parts:
    """Read all data files and divide them.

    Raises
    ------
    FileNotFoundError, InputError
    """
    data, isolated = config.data, config.model.get("isolated") is True

    def read(paths: tuple[str, ...]) -> list[Structure]:
        files = [resolve(path, config_path) for path in paths]
        structures = read_structures(files, data.keys, data.format)
        return [s.in_free_space() for s in structures] if isolated else structures

    if not data.train:
        raise InputError(describe("data.train", "no file", "one file or more"))
    structures, validation, test = read(data.train), read(data.validation), read(data.test)
    split = random_split(
        len(structures),
        validation=0 if data.validation else data.num_validation,
        test=0 if data.test else data.num_test,
        train=data.num_train,
        seed=data.split_seed,
        allow_no_validation=bool(data.validation),
    )
    parts = Parts(
        train=[structures[i] for i in split.train],
        validation=validation or [structures[i] for i in split.validation],
        test=test or [structures[i] for i in split.test],
        split=split,
    )
    _check_labels(config, parts)
    return parts


def _check_labels(config: TrainingConfig, parts: Parts) -> None:
    """Every weighted quantity has labels somewhere, and every structure has one of them."""
    attributes = {
        name: "energy" if name == "energy_per_atom" else name
        for name, weight in config.loss.weights().items()
        if weight > 0
    }

    def has(structure: Structure, attribute: str) -> bool:
        usable = {"dipole": not structure.pbc, "stress": structure.pbc}.get(attribute, True)
        return usable and getattr(structure, attribute) is not None

    for name, attribute in attributes.items():
        if not any(has(s, attribute) for s in parts.train):
            raise InputError(
                describe(f"loss.{name}", "a weight above 0, but no training label", "labels, or 0")
            )
    for part in ("train", "validation"):
        for index, structure in enumerate(getattr(parts, part)):
            if not any(has(structure, attribute) for attribute in attributes.values()):
                raise InputError(
                    describe(
                        f"{part} structure {index}",
                        "no label",
                        "one of " + ", ".join(attributes.values()),
                    )
                )


def prepare(
    config: TrainingConfig, parts: Parts, config_path: str | Path
) -> tuple[NequIPLRPotential, GraphDataset, GraphDataset]:
    """Model with statistics of the data set, and the graphs.

    Returns
    -------
    model : NequIPLRPotential
    train, validation : GraphDataset
    """
    copies: list[Structure] = []
    if config.harmonic.copies:
        copies = harmonic_copies(parts.train, config.harmonic, config.seed).structures
    if config.start_from is not None:
        model = earlier_model(config, config_path)
    else:
        model = new_model(config, parts.train, [*parts.validation, *parts.test], copies)
    if not model.config.equilibration:
        _check_no_charges(config)
    model.to(torch.float64 if config.precision == "double" else torch.float32)
    data = GraphDataset([*parts.train, *copies], model), GraphDataset(parts.validation, model)
    fit_energies(model, config, parts.train)
    set_start(model, config.equilibration, data[0])
    return model.train(), *data


def _check_no_charges(config: TrainingConfig) -> None:
    """A model without equilibration has no charges to train and nothing to start."""
    expected = "0 with model.equilibration: false"
    for name in ("charges", "dipole"):
        if config.loss.weights()[name] > 0:
            raise InputError(describe(f"loss.{name}", config.loss.weights()[name], expected))
    if config.equilibration != EquilibrationConfig():
        expected = "nothing with model.equilibration: false"
        raise InputError(describe("equilibration", config.equilibration, expected))
