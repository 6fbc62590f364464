"""Preparation of a training: structures and their split, model, graphs and labels."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..data.checking import Say
from ..data.dataset import GraphDataset
from ..data.quantities import LABELS, OF_CHARGES
from ..data.reading import read_structures, unsaid
from ..data.sequences import chained, chosen, selected
from ..data.split import Split, random_split
from ..data.store import Stored
from ..data.structure import Structure
from ..errors import InputError, describe
from ..model import NequIPLRPotential, load_model
from .config import DataFile, EquilibrationConfig, TrainingConfig, model_file, resolve
from .continuation import digest
from .distill import displaced, relabelled
from .harmonic import harmonic_copies
from .initial import earlier_model, fit_energies, freeze, new_model
from .loss import label_of
from .start import set_start

# Atoms of a batch per thread, and number of structures used to estimate the atoms of a batch.
_BUSY, _SAMPLED = 200, 200


@dataclass(frozen=True)
class Parts:
    """Structures of a training, divided into training, validation and test sets.

    Parameters
    ----------
    train, validation, test : sequence of Structure
    split : Split or None
        Indices of these structures in the files.
    teacher : NequIPLRPotential or None
        Model that provides the labels.
    stores : frozenset of path
        Directories of the structures stored on disk.
    """

    train: Sequence[Structure]
    validation: Sequence[Structure]
    test: Sequence[Structure]
    split: Split | None
    teacher: NequIPLRPotential | None = None
    stores: frozenset[Path] = frozenset()


def read_parts(
    config: TrainingConfig,
    config_path: str | Path,
    say: Say = unsaid,
    store: Path | None = None,
) -> Parts:
    """Read all data files and divide them.

    Parameters
    ----------
    config : TrainingConfig
    config_path : path
    say : callable
        Called with each note on the data.
    store : path, optional
        Directory in which large sets of structures are stored.

    Raises
    ------
    FileNotFoundError, InputError
        If a data file is missing or cannot be read, or the structures cannot be divided.
    """
    data, isolated = config.data, config.model.get("isolated") is True
    stores: set[Path] = set()

    def read(part: str) -> Sequence[Structure]:
        found = []
        for file in data.files(part):
            path, options = resolve(file.path, config_path), (data.format, data.units, say)
            structures = read_structures(path, file.keys, *options, store=store)
            if isinstance(structures, Stored):
                stores.add(structures.directory)
            found.append(weighted(structures, file))
        structures = chained(found)
        return selected(structures, Structure.in_free_space) if isolated else structures

    def weighted(structures: Sequence[Structure], file: DataFile) -> Sequence[Structure]:
        if file.weight == 1.0:
            return structures
        return selected(structures, lambda s: replace(s, weight=s.weight * file.weight))

    if not data.train:
        raise InputError(describe("data.train", "no file", "one file or more"))
    parts = divide(config, read("train"), read("validation"), read("test"))
    if config.distill_from is not None:
        teacher = load_model(model_file(config.distill_from, config_path, "distill_from"))
        say(f"labels: energies and forces of {config.distill_from}")
        train, validation, test = (
            relabelled(each, teacher) for each in (parts.train, parts.validation, parts.test)
        )
        parts = Parts(train, validation, test, parts.split, teacher)
    parts = replace(parts, stores=frozenset(stores))
    for line in _remarks(config, parts):
        say(line)
    return parts


def divide(
    config: TrainingConfig,
    structures: Sequence[Structure],
    validation: Sequence[Structure] = (),
    test: Sequence[Structure] = (),
) -> Parts:
    """Divide the structures of a training.

    Parameters
    ----------
    config : TrainingConfig
    structures, validation, test : sequence of Structure
        Structures in the files of ``data.train``, ``data.validation`` and ``data.test``.

    Raises
    ------
    InputError
        If there are too few structures, or labels that the loss needs are missing.
    """
    data = config.data
    try:
        split = random_split(
            len(structures),
            validation=0 if data.validation else data.num_validation,
            test=0 if data.test else data.num_test,
            train=data.num_train,
            seed=data.split_seed,
            allow_no_validation=bool(data.validation),
        )
    except InputError as error:
        raise InputError(f"data.num_train, num_validation, num_test: {error}") from None
    parts = Parts(
        train=chosen(structures, split.train),
        validation=validation or chosen(structures, split.validation),
        test=test or chosen(structures, split.test),
        split=split,
    )
    _check_labels(config, parts)
    return parts


def _remarks(config: TrainingConfig, parts: Parts) -> list[str]:
    """Notes before the training: labels that are not learned, repeated structures."""
    lines = []
    labelled, known = Counter[str](), set[str]()
    for structure in parts.train:
        labelled.update(name for name in LABELS if getattr(structure, name) is not None)
        known.add(place_of(structure))
    for name, weight in config.loss.weights().items():
        attribute = label_of(name)
        if weight == 0.0 and labelled[attribute]:
            lines.append(
                f"{attribute}: labels in {labelled[attribute]} of {len(parts.train)} training "
                f"structures are not learned, loss.{name} is 0"
            )
    for name in ("validation", "test"):
        structures = getattr(parts, name)
        shared = sum(place_of(structure) in known for structure in structures)
        if shared:
            lines.append(f"{shared} of {len(structures)} {name} structures are trained on as well")
    again = len(parts.train) - len(known)
    if again:
        lines.append(f"{again} of {len(parts.train)} training structures are copies of others")
    return lines


def place_of(structure: Structure) -> str:
    """Fingerprint of the atoms, positions, cell and charge, equal for repeated structures."""
    return digest(structure, (*LABELS, "weight", "synthetic"))


def _check_labels(config: TrainingConfig, parts: Parts) -> None:
    """Refuse weighted quantities without labels, and structures without weighted labels."""
    attributes = {
        name: label_of(name) for name, weight in config.loss.weights().items() if weight > 0
    }

    if config.distill_from is not None:
        others = sorted(set(attributes.values()) - {"energy", "forces"})
        if others:
            expected = "weights of energies and forces alone with distill_from"
            raise InputError(describe("loss", f"weights of {', '.join(others)}", expected))
        return
    if config.harmonic.copies and "forces" not in attributes:
        expected = "0 where loss.forces is 0, as forces are all that copies have"
        raise InputError(describe("harmonic.copies", config.harmonic.copies, expected))
    for name, attribute in attributes.items():
        if not any(s.has_label(attribute) for s in parts.train):
            raise InputError(
                describe(f"loss.{name}", "a weight above 0, but no training label", "labels, or 0")
            )
    if not any(structure.weight > 0 for structure in parts.train):
        raise InputError(describe("config_weight", 0.0, "one training structure above 0"))
    for part in ("train", "validation"):
        for index, structure in enumerate(getattr(parts, part)):
            if not any(structure.has_label(attribute) for attribute in attributes.values()):
                raise InputError(
                    describe(
                        structure.origin or f"{part} structure {index}",
                        "no label",
                        "one of " + ", ".join(attributes.values()),
                    )
                )


def threads_of(config: TrainingConfig, structures: Sequence[Structure]) -> int:
    """Number of threads of torch: as configured, or as many as batches of structures keep busy."""
    if config.num_threads is not None:
        return config.num_threads
    atoms = batch_structures(config, structures) * _mean_atoms(structures)
    return max(1, min(torch.get_num_threads(), round(atoms / _BUSY)))


def batch_structures(config: TrainingConfig, structures: Sequence[Structure]) -> int:
    """Structures per training batch; the mean number if batches are limited by atoms."""
    if config.batch_atoms is None:
        return config.batch_size
    return max(1, round(config.batch_atoms / _mean_atoms(structures)))


def _mean_atoms(structures: Sequence[Structure]) -> float:
    sample = structures[:: -(-len(structures) // _SAMPLED)]
    return sum(each.num_atoms for each in sample) / len(sample)


def prepare(
    config: TrainingConfig, parts: Parts, config_path: str | Path, sample: int | None = None
) -> tuple[NequIPLRPotential, GraphDataset, GraphDataset]:
    """Initial model with the statistics of the data, and the graphs.

    Parameters
    ----------
    config : TrainingConfig
    parts : Parts
    config_path : path
    sample : int, optional
        Number of structures of each part, drawn at random, that become graphs; by default all.
        The statistics always include all structures.

    Returns
    -------
    model : NequIPLRPotential
    train, validation : GraphDataset
    """
    copies: list[Structure] = []
    if config.harmonic.copies and parts.teacher is not None:
        copies = relabelled(displaced(parts.train, config.harmonic, config.seed), parts.teacher)
    elif config.harmonic.copies:
        copies = harmonic_copies(parts.train, config.harmonic, config.seed).structures
    if config.start_from is not None:
        everything = chained([parts.train, parts.validation, parts.test, copies])
        model = earlier_model(config, config_path, everything)
    else:
        model = new_model(config, parts.train, chained([parts.validation, parts.test]), copies)
    if not model.config.equilibration:
        _check_no_charges(config)
    model.to(torch.float64 if config.precision == "double" else torch.float32)
    learned, validated = chained([parts.train, copies]), parts.validation
    if sample is not None:
        learned, validated = _sampled(learned, sample), _sampled(validated, sample)
    memory = 1e9 * config.data.memory
    data = (
        GraphDataset(learned, model, 0.8 * memory),
        GraphDataset(validated, model, 0.2 * memory),
    )
    fit_energies(model, config, parts.train)
    set_start(model, config.equilibration, data[0])
    freeze(model, config.freeze)
    return model.train(), *data


def _sampled(structures: Sequence[Structure], count: int) -> Sequence[Structure]:
    """Random sample with at least one structure with charges, if any; the start may need it."""
    drawn = random.Random(0).sample(range(len(structures)), min(count, len(structures)))
    known = [each.charges is not None and each.weight > 0 for each in structures]
    labelled = [index for index, own in enumerate(known) if own]
    if labelled and not set(drawn) & set(labelled):
        drawn[-1] = labelled[0]
    return chosen(structures, sorted(drawn))


def _check_no_charges(config: TrainingConfig) -> None:
    """Refuse settings and labels of charges for a model without charge equilibration."""
    expected = "0 with model.equilibration: false"
    for name in OF_CHARGES:
        if config.loss.weights()[name] > 0:
            raise InputError(describe(f"loss.{name}", config.loss.weights()[name], expected))
    if config.equilibration != EquilibrationConfig():
        expected = "nothing with model.equilibration: false"
        raise InputError(describe("equilibration", config.equilibration, expected))
