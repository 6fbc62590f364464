"""Operator by which a TorchScript graph delegates its Coulomb sum to OpenMM.

A saved graph refers to the operator by name, so it must be registered before such a graph is
loaded. Registration is cheap. :mod:`openmm_nequiplr.simulation`, which evaluates the sum, is
imported at the first call.
"""

# torch reads the annotations of the operator: no postponed ones here
import importlib
from collections.abc import Callable
from typing import Any

import torch

#: Name of the operator, ``torch.ops.openmm_nequiplr.point_charge_difference`` in a graph.
OPERATOR = "openmm_nequiplr::point_charge_difference"

_sums: list[Callable[..., tuple[Any, Any]]] = []


def provide(function: Callable[..., tuple[Any, Any]]) -> None:
    """Set the function that the operator calls, with its arguments and results as arrays."""
    _sums[:] = [function]


@torch.library.custom_op(OPERATOR, mutates_args=())
def point_charge_difference(
    positions: torch.Tensor,
    cell: torch.Tensor,
    charges: torch.Tensor,
    subtracted: torch.Tensor,
    eta: float,
    settings: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth part of the point-charge Ewald sum of q minus that of p; not differentiable.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
        Rows are lattice vectors.
    charges, subtracted : torch.Tensor, float64, shape (N,), e
    eta : float, Å
        Ewald width; the pairs k_e q_i q_j erfc(r/√2η)/r are excluded.
    settings : str
        JSON with ``num_atoms``, ``tolerance``, ``precision`` and ``platform`` of the sum.

    Returns
    -------
    energy : torch.Tensor, float64, scalar, eV
    forces : torch.Tensor, float64, shape (N, 3), eV/Å
    """
    if not _sums:
        importlib.import_module("openmm_nequiplr.simulation")
    arrays = [t.detach().cpu().numpy() for t in (positions, cell, charges, subtracted)]
    energy, forces = _sums[0](*arrays, eta, settings)
    return positions.new_tensor(energy), torch.from_numpy(forces).to(positions)
