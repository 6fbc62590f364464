"""Matrices of the real-space sum over all periodic images within a cutoff."""

from __future__ import annotations

import torch

from .choice import compiled, register
from .pair_formulas import pair_coefficients, pair_width

#: The six components of a symmetric tensor: xx, yy, zz, yz, xz, xy.
SIX = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
# Number of distances that the reference computes at a time.
_BLOCK = 400_000


def image_sums(
    positions: torch.Tensor,
    cell: torch.Tensor,
    widths: torch.Tensor,
    eta: float,
    cutoff: float,
    strain: bool,
) -> torch.Tensor:
    """Sums over images of c(r)/k_e (:func:`.pair_formulas.pair_coefficients`) and its derivatives.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    eta, cutoff : float, Å
    strain : bool
        Whether to compute the derivatives with respect to the strain.

    Returns
    -------
    torch.Tensor, float64, shape (4 or 10, N, N)
        Σ c_ij, 1/Å; its derivatives by the position of atom i; its derivatives by a homogeneous
        strain, components `SIX`.
    """
    # fractional differences are wrapped to [−½, ½]; then all images within the cutoff
    inverse = torch.linalg.inv(cell)
    most = torch.floor(cutoff * torch.linalg.vector_norm(inverse, dim=0) + 0.5).tolist()
    steps = [torch.arange(-n, n + 1.0, dtype=cell.dtype, device=cell.device) for n in most]
    images = torch.cartesian_prod(*steps) @ cell
    known = compiled(positions, "image_sums")
    run = torch.ops.openmm_nequiplr.image_sums if known else _reference
    return run(positions @ inverse, cell, images, widths, eta, cutoff, strain)


def _reference(
    places: torch.Tensor,
    cell: torch.Tensor,
    images: torch.Tensor,
    widths: torch.Tensor,
    eta: float,
    cutoff: float,
    strain: bool,
) -> torch.Tensor:
    """:func:`image_sums` for fractional coordinates and translations, shape (I, 3), Å."""
    count = len(places)
    first, second = torch.triu_indices(count, count, device=places.device)
    apart = places[second] - places[first]
    apart = (apart - apart.round()) @ cell
    lengths, width = images.square().sum(-1), pair_width(widths[first], widths[second])
    sums = places.new_zeros(len(first), 10 if strain else 4)
    every = torch.arange(len(first), device=places.device)
    for block in every.split(max(_BLOCK // len(images), 1)):
        start = apart[block]
        square = start.square().sum(-1, keepdim=True) + 2.0 * start @ images.t() + lengths
        near, image = torch.nonzero((square < cutoff**2) & (square > 0.0), as_tuple=True)
        vector, own = start[near] + images[image], block[near]
        value, slope = pair_coefficients(vector, width[own], eta, cutoff)
        along = slope.unsqueeze(-1) * vector
        parts = [value.unsqueeze(-1), -along]
        if strain:
            parts.append(along[:, SIX[0]] * vector[:, SIX[1]])
        sums.index_add_(0, own, torch.cat(parts, dim=1))
    result = sums.new_zeros(sums.shape[1], count, count)
    sums[:, 1:4] *= (first != second).unsqueeze(-1)
    result[:, first, second] = sums.t()
    sums[:, 1:4] *= -1.0
    result[:, second, first] = sums.t()
    return result


register(
    "image_sums(Tensor places, Tensor cell, Tensor images, Tensor widths, float eta, "
    "float cutoff, bool strain) -> Tensor",
    "image",
    "sums",
    ("cpu",),
)
