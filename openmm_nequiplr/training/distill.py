"""Distillation: labels that come from a trained model.

A small network learns from a large one what it can represent (Hinton, Vinyals and Dean,
arXiv:1503.02531). It takes any structures, with or without labels of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.dataset import labelled_graph
from ..data.quantities import LABELS
from ..data.structure import Structure
from ..model import Evaluator, NequIPLRPotential
from .harmonic import HarmonicConfig, copied_indices


def relabelled(structures: Sequence[Structure], teacher: NequIPLRPotential) -> list[Structure]:
    """Structures with energy and forces of a model in place of all labels.

    Parameters
    ----------
    structures : sequence of Structure
    teacher : NequIPLRPotential
        Its parameters are frozen.

    Raises
    ------
    InputError
        If it cannot evaluate one of them; its file and place there are named.
    ConvergenceError
        If its charges cannot be solved for.
    """
    evaluator = Evaluator(teacher)
    found = []
    for index, structure in enumerate(structures):
        graph = labelled_graph(structure, teacher, structure.origin or f"structure {index}").graph
        result = evaluator(graph)
        bare = structure.without(*LABELS)
        found.append(replace(bare, energy=result.energy, forces=result.forces))
    return found


def displaced(
    structures: Sequence[Structure], config: HarmonicConfig, seed: int
) -> list[Structure]:
    """Copies with random displacements, weight and number as configured, without labels."""
    rng = np.random.default_rng(seed)
    copies = []
    for index in copied_indices(len(structures), config.copies, rng):
        old = structures[index].without(*LABELS)
        moved = old.positions + rng.normal(0.0, config.displacement, size=old.positions.shape)
        weight = config.weight * old.weight
        copies.append(replace(old, positions=moved, weight=weight, synthetic=True))
    return copies
