"""Committees of models, and the disagreement (spread) of their members.

Models trained with different seeds agree on structures that are well represented in the training
data. Their spread is therefore a measure of the uncertainty. It is the root mean square deviation
from the mean of the members; for vectors, of the length of the deviation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, ModelFileError, describe, notify
from ..pretrained import named_models
from .building import build_graph
from .evaluation import Evaluation, Evaluator
from .geometry_checks import graph_key
from .io import load_model, model_digest
from .potential import NequIPLRPotential

#: Model files in the directory of a committee.
MEMBERS = "seed_*/model.safetensors"


@dataclass(frozen=True)
class Spread:
    """Spread of M models on a structure of N atoms.

    Parameters
    ----------
    energy : float, eV
    forces : numpy.ndarray, shape (N,), eV/Å
        Root mean square length of F_k − mean F for each atom.
    charges : numpy.ndarray, shape (N,), e
    """

    energy: float
    forces: np.ndarray
    charges: np.ndarray

    @classmethod
    def of(cls, members: Sequence[Evaluation]) -> Spread:
        """Spread of evaluations, with forces, of a structure."""
        return cls(
            energy=float(deviation(np.array([m.energy for m in members]))),
            forces=deviation(np.stack([_forces(m) for m in members]), vectors=True),
            charges=deviation(np.stack([m.charges for m in members])),
        )

    @property
    def largest_force(self) -> float:
        """Largest spread of the force on an atom, eV/Å."""
        return float(self.forces.max())


@dataclass(frozen=True)
class CommitteeEvaluation:
    """Evaluation of a structure of N atoms by a committee.

    Parameters
    ----------
    members : tuple of Evaluation
    spread : Spread
    """

    members: tuple[Evaluation, ...]
    spread: Spread

    @property
    def energy(self) -> float:
        """Mean energy, eV."""
        return float(np.mean([m.energy for m in self.members]))

    @property
    def forces(self) -> np.ndarray:
        """Mean forces, shape (N, 3), eV/Å."""
        return np.mean([_forces(m) for m in self.members], axis=0)

    @property
    def charges(self) -> np.ndarray:
        """Mean charges, shape (N,), e."""
        return np.mean([m.charges for m in self.members], axis=0)


class Committee:
    """Evaluator of a committee of models, which share graphs where possible.

    Parameters
    ----------
    models : sequence of NequIPLRPotential, path or str
        Models, model files, names of models, or directories of committees; at least two models in
        total.
    dtype : torch.dtype, optional
        Precision of the networks.
    device : torch.device or str, optional
    **options
        Fields of :class:`.solving.SolverOptions`.

    Raises
    ------
    InputError
        If there are fewer than two models, or they are not of the same kind.
    ModelFileError
        If a model cannot be read.
    """

    def __init__(
        self,
        models: Sequence[NequIPLRPotential | str | os.PathLike],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        self.models = load_members(models)
        self.evaluators = [Evaluator(model, dtype, device, **options) for model in self.models]

    def __call__(
        self,
        numbers: Sequence[int] | Sequence[str] | np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] = False,
        total_charge: float = 0.0,
        **conditions: Any,
    ) -> CommitteeEvaluation:
        """Evaluate all models on one structure.

        Arguments and errors are those of :func:`openmm_nequiplr.model.building.build_graph`.
        """
        graphs = {}
        results = []
        for evaluator in self.evaluators:
            config = evaluator.model.config
            iterative = evaluator.iterative(len(numbers), bool(np.any(pbc)))
            key = (graph_key(config), iterative)
            if key not in graphs:
                arguments = config, numbers, positions, cell, pbc, total_charge, not iterative
                graphs[key] = build_graph(*arguments, **conditions)
            results.append(evaluator(graphs[key].to(evaluator.model.device)))
        return CommitteeEvaluation(tuple(results), Spread.of(results))


def deviation(values: np.ndarray, vectors: bool = False) -> np.ndarray:
    """Root mean square deviation from the mean over the first axis.

    Parameters
    ----------
    values : numpy.ndarray, shape (M, ...)
        Values of M members.
    vectors : bool
        Whether the last axis contains the components of vectors, whose deviation is a length.

    Returns
    -------
    numpy.ndarray
        The shape is that of one member's values, without the last axis for vectors.
    """
    squares = (values - values.mean(axis=0)) ** 2
    return np.sqrt((squares.sum(axis=-1) if vectors else squares).mean(axis=0))


def member_path(directory: str | os.PathLike, seed: int) -> Path:
    """Model file of a member in a committee's directory."""
    return Path(directory) / f"seed_{seed}" / "model.safetensors"


def member_paths(directory: str | os.PathLike) -> list[Path]:
    """Model files of a committee's directory, by seed.

    Raises
    ------
    ModelFileError
        If there are none.
    """
    paths = sorted(Path(directory).glob(MEMBERS), key=lambda path: (len(path.parent.name), path))
    if not paths:
        expected = f"a directory with models {MEMBERS}, as written by training with --seeds"
        raise ModelFileError(describe("committee", str(directory), expected))
    return paths


def is_committee(model: object) -> bool:
    """Whether it is the directory of a committee, and not the name of a model."""
    if isinstance(model, NequIPLRPotential) or str(model) in named_models():
        return False
    return Path(str(model)).is_dir()


def member_sources(
    models: Sequence[NequIPLRPotential | str | os.PathLike],
) -> list[NequIPLRPotential | str | os.PathLike]:
    """The given models, with each directory of a committee replaced by its members."""
    sources: list[NequIPLRPotential | str | os.PathLike] = []
    for model in models:
        if not isinstance(model, NequIPLRPotential) and is_committee(model):
            sources += member_paths(model)
        else:
            sources.append(model)
    return sources


def load_models(
    models: Sequence[NequIPLRPotential | str | os.PathLike],
) -> list[NequIPLRPotential]:
    """Load one or more models, including the members of committees.

    Raises
    ------
    InputError
        If they are not of the same kind.
    ModelFileError
        If a model cannot be read.
    """
    loaded = [
        source if isinstance(source, NequIPLRPotential) else load_model(source)
        for source in member_sources(models)
    ]
    check_alike(loaded)
    return loaded


def load_members(
    models: Sequence[NequIPLRPotential | str | os.PathLike],
) -> list[NequIPLRPotential]:
    """Load the models of a committee, and check that they can be compared.

    Parameters
    ----------
    models : sequence of NequIPLRPotential, path or str
        See :class:`Committee`.

    Raises
    ------
    InputError
        If there are fewer than two models, or they are not of the same kind.
    ModelFileError
        If a model cannot be read.
    """
    loaded = load_models(models)
    if len(loaded) < 2:
        raise InputError(describe("committee", f"{len(loaded)} model", "two models or more"))
    return loaded


def check_alike(models: Sequence[NequIPLRPotential]) -> None:
    """Check that models can be compared, and report identical ones, which never disagree.

    Raises
    ------
    InputError
        If their elements differ, or only some of them have charges.
    """
    first = models[0].config
    digests = [model_digest(model) for model in models] if len(models) > 1 else []
    for number, model in enumerate(models[1:], start=2):
        config = model.config
        if set(config.type_names) != set(first.type_names):
            expected = f"the elements of the first, {', '.join(first.type_names)}"
            got = ", ".join(config.type_names)
            raise InputError(describe(f"committee, model {number}", got, expected))
        if config.equilibration != first.equilibration:
            expected = "charge equilibration in all models or in none"
            got = f"{'with' if config.equilibration else 'without'}"
            raise InputError(describe(f"committee, model {number}", got, expected))
        twin = digests.index(digests[number - 1]) + 1
        if twin < number:
            notify(f"committee: models {twin} and {number} are the same and never disagree")


def _forces(member: Evaluation) -> np.ndarray:
    if member.forces is None:
        raise InputError(describe("members", "an evaluation without forces", "forces in all"))
    return member.forces
