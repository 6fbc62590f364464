"""The operator through which a TorchScript graph hands its Coulomb sum to OpenMM.

A saved graph refers to it by name, so it must be registered before such a graph is loaded.
Registering is cheap; :mod:`openmm_nequiplr.simulation`, which does the sum, is imported at the
first call.
"""

# torch reads the annotations of the operator: no postponed ones here
import importlib
from collections.abc import Callable
from typing import Any

import torch

#: Its name in a graph, ``torch.ops.openmm_nequiplr.point_charge_difference``.
OPERATOR = "openmm_nequiplr::point_charge_difference"

_sums: list[Callable[..., tuple[Any, Any]]] = []


def provide(function: Callable[..., tuple[Any, Any]]) -> None:
    """Set the function behind the operator: the same arguments, arrays in and out."""
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
    """Smooth part of the point-charge Ewald sums of q less that of p, without a gradient.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
        Rows are lattice vectors.
    charges, subtracted : torch.Tensor, float64, shape (N,), e
    eta : float, Å
        Ewald width: the pairs k_e q_i q_j erfc(r/√2η)/r are left out.
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
