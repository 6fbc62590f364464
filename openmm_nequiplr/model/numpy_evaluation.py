"""Conversion of the tensors of one structure to an evaluation in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..graph import AtomicGraph
from .inference import Results, seen_charges
from .observables import Observation
from .output import Evaluation, PotentialOutput
from .potential import NequIPLRPotential
from .response import Charged
from .strain import stress_from_strain


def evaluation_of(
    model: NequIPLRPotential,
    graph: AtomicGraph,
    charged: Charged,
    results: Results,
    compute_forces: bool,
    compute_stress: bool,
    observed: tuple[Observation, ...],
) -> Evaluation:
    """Evaluation of one structure from its tensors, with a single copy from the device."""
    found = collected(model, graph, charged, results, compute_forces, compute_stress)
    numbers = to_numpy(found.values)
    return found.evaluation(numbers, results.residual, results.iterations, observed)


@dataclass(frozen=True)
class Collected:
    """All results of one structure in one tensor.

    Parameters
    ----------
    values : torch.Tensor, float64, shape (K,)
    parts : tuple of str
        Names of the contributions to the energy that it begins with, after the energy, the energy
        shifts and the electrostatic energy.
    arrays : dict
        Names and shapes of the arrays that follow.
    """

    values: torch.Tensor
    parts: tuple[str, ...]
    arrays: dict[str, torch.Size]

    def evaluation(
        self,
        numbers: np.ndarray,
        residual: float,
        iterations: tuple[int, int],
        observed: tuple[Observation, ...] = (),
    ) -> Evaluation:
        """Evaluation from the values on the host; those behind the arrays are ignored."""
        first = 3 + len(self.parts)
        total, constant, electrostatic, *each = numbers[:first].tolist()
        parts = dict(zip(self.parts, each, strict=True))
        parts["coulomb"] = total - sum(parts.values())
        parts["short_range"] += constant
        fields: dict[str, Any] = {"forces": None, "stress": None}
        for name, shape in self.arrays.items():
            fields[name] = numbers[first : first + shape.numel()].reshape(shape)
            first += shape.numel()
        return Evaluation(
            energy=total + constant,
            parts=parts,
            residual=residual,
            iterations=iterations,
            electrostatic=electrostatic,
            observed=observed,
            **fields,
        )


def collected(
    model: NequIPLRPotential,
    graph: AtomicGraph,
    charged: Charged,
    results: Results,
    compute_forces: bool = True,
    compute_stress: bool = False,
    more: Sequence[torch.Tensor] = (),
) -> Collected:
    """Results of one structure in one tensor on its device, followed by ``more`` float64 ones."""
    charges, scale = results.charges, charged.inference.scale
    atoms, geometry = charged.atoms, charged.geometry
    sums = {"short_range": results.short_range.sum()}
    if model.config.electrostatic_energy == "qeq":
        sums["electronegativity"] = charges @ results.chi
        sums["hardness"] = 0.5 * ((atoms.hardness * charges) @ charges)
    if geometry.outside is not None:
        seen = seen_charges(charges, atoms.offsets)
        sums["outside"] = seen @ geometry.outside.detach()
    arrays = {"charges": charges, "adjoint": results.adjoint, "electronegativity": results.chi}
    arrays["dipole"] = charges @ graph.positions
    if compute_forces:
        gradient, forces = results.gradients[0], results.external_forces
        arrays["forces"] = forces if len(forces) else torch.zeros_like(graph.positions)
        if gradient is not None:
            arrays["forces"] = forces - gradient if len(forces) else -gradient
        others = results.gradients[1:]
        if not compute_stress and len(others) == 1 and others[0] is not None:
            arrays["outside_forces"] = -others[0]
    if compute_stress:
        slope = results.gradients[1]
        slope = torch.zeros_like(graph.cell) if slope is None else slope
        arrays["stress"] = stress_from_strain(slope, graph.cell, graph.periodic)[0]
    reference, copies = model.reference_energy(graph)[0], graph.replicas
    if copies > 1:
        atomic = torch.add(results.short_range, results.electrostatic, alpha=scale)
        arrays["replica_energies"] = atomic.reshape(copies, -1).sum(dim=1) + reference / copies
    if scale != 1.0:
        sums |= {name: scale * each for name, each in sums.items() if name != "short_range"}
    energies = results.energy, reference, results.electrostatic.sum(), *sums.values()
    values = torch.cat([torch.stack(energies), *map(flat, arrays.values()), *more])
    return Collected(values, tuple(sums), {name: each.shape for name, each in arrays.items()})


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Tensor in float64 and one dimension."""
    return tensor.to(torch.float64).reshape(-1)


def evaluation_of_output(output: PotentialOutput) -> Evaluation:
    """Evaluation from the output of the differentiable model for one structure or its replicas."""
    short, electrostatic = output.energy_short_range.sum(), output.energy_electrostatic.sum()
    return Evaluation(
        energy=float(output.energy.sum()),
        forces=None if output.forces is None else to_numpy(output.forces),
        stress=None if output.stress is None else to_numpy(output.stress.sum(dim=0)),
        charges=to_numpy(output.charges),
        adjoint=np.zeros(len(output.charges)),
        electronegativity=to_numpy(output.electronegativity),
        dipole=to_numpy(output.dipole.sum(dim=0)),
        parts={"short_range": float(short), "coulomb": float(electrostatic)},
        electrostatic=float(electrostatic),
        replica_energies=to_numpy(output.energy) if len(output.energy) > 1 else None,
    )


def check_finite(evaluation: Evaluation) -> None:
    """Check that the energy and the forces are finite."""
    total = evaluation.energy
    if evaluation.forces is not None:
        total += float(evaluation.forces.sum())
    if not math.isfinite(total):
        raise InputError(
            "positions: expected a geometry that the model can evaluate, got a non-finite "
            "energy or force; atoms on top of one another are the usual cause"
        )


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Convert a tensor to a float64 array."""
    return tensor.detach().to(torch.float64).cpu().numpy()
