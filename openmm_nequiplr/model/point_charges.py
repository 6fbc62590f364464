"""Interface to external code for point-charge Coulomb sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch

#: ``f(positions, cell, charges) -> (energy, forces)``: Coulomb sum of point charges with the
#: physical constant; in a cell, the Ewald sum with tin-foil boundary conditions and a uniform
#: neutralising background. Shapes (N, 3) Å, (3, 3) Å or None, (N,) e; eV and (N, 3) eV/Å.
PointChargeCoulomb = Callable[
    [np.ndarray, "np.ndarray | None", np.ndarray], tuple[float, np.ndarray]
]


@runtime_checkable
class SmoothCoulomb(Protocol):
    """A :data:`PointChargeCoulomb` that can exclude the pairs of a periodic sum."""

    def smooth(
        self, positions: np.ndarray, cell: np.ndarray, charges: np.ndarray, eta: float
    ) -> tuple[float, np.ndarray]:
        """The sum minus Σ k_e q_i q_j erfc(r/√2η)/r of all pairs and images, η in Å."""
        ...


class ExternalPointCharges(torch.nn.Module):
    """Adapter of a :data:`PointChargeCoulomb` for :class:`.inference.Inference`.

    Parameters
    ----------
    coulomb : callable
    periodic : bool
    smooth : bool
        Whether to exclude the pairs.
    """

    def __init__(self, coulomb: PointChargeCoulomb, periodic: bool, smooth: bool) -> None:
        super().__init__()
        self.coulomb, self.periodic, self.smooth = coulomb, periodic, smooth

    def forward(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        eta: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy, eV, and forces, (N, 3), eV/Å, of ``charges`` minus those of ``subtracted``."""
        points = _numpy(positions)
        box = _numpy(cell) if self.periodic else None
        total, forces = 0.0, np.zeros_like(points)
        for sign, values in ((1.0, charges), (-1.0, subtracted)):
            if not bool(values.any()):
                continue
            if self.smooth:
                sum_ = cast(SmoothCoulomb, self.coulomb).smooth
                energy, force = sum_(points, cast(np.ndarray, box), _numpy(values), eta)
            else:
                energy, force = self.coulomb(points, box, _numpy(values))
            total += sign * float(energy)
            forces += sign * np.asarray(force)
        pull = torch.from_numpy(forces).to(positions.device)
        return pull.new_tensor(total), pull


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
