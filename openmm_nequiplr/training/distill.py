"""Knowledge distillation: energies and forces of a trained model as labels for another network.

A small network learns from a large one (Hinton, Vinyals and Dean, arXiv:1503.02531). Any
structures can be used, with or without labels.
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
    """Structures whose labels are replaced by the energy and forces of a model.

    Parameters
    ----------
    structures : sequence of Structure
    teacher : NequIPLRPotential
        Its parameters are frozen.

    Raises
    ------
    InputError
        If the model cannot evaluate a structure. The message names its file and index.
    ConvergenceError
        If the charge equilibration fails.
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
    """Randomly displaced copies without labels; their number and weight are as configured."""
    rng = np.random.default_rng(seed)
    copies = []
    for index in copied_indices(len(structures), config.copies, rng):
        old = structures[index].without(*LABELS)
        moved = old.positions + rng.normal(0.0, config.displacement, size=old.positions.shape)
        weight = config.weight * old.weight
        copies.append(replace(old, positions=moved, weight=weight, synthetic=True))
    return copies
