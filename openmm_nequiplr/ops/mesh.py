"""Cardinal B-splines between atoms and a periodic mesh (Essmann et al. 1995, doi:10.1063/1.470117).

:func:`stencil` returns an opaque state with the mesh points around the atoms and their weights. It
is the input of :func:`spread`, :func:`gather` and :func:`gather_gradient` as long as the atoms do
not move. None of these functions is differentiable; the gradient of an energy follows from
:func:`gather_gradient`.
"""

# TorchScript compiles the references and reads their annotations: no postponed ones here
import torch

from .choice import compiled, register


def spline_weights(fraction: torch.Tensor, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cardinal B-spline weights of mesh points and their derivatives (ibid., eqs. 4.1 and 4.2).

    Parameters
    ----------
    fraction : torch.Tensor, float64, shape (N, 3)
        Distance of an atom from the mesh point below it, in mesh spacings.
    order : int
        Spline order p, at least 3.

    Returns
    -------
    weights, slopes : torch.Tensor, float64, shape (N, 3, p)
    """
    zero = torch.zeros_like(fraction)
    weights = [1.0 - fraction, fraction]
    slopes = [zero, zero]
    for n in range(3, order + 1):
        low, high = [zero] + weights, weights + [zero]
        slopes = [low[j] - high[j] for j in range(n)]
        weights = [
            ((fraction + float(n - 1 - j)) * low[j] + (1.0 + float(j) - fraction) * high[j])
            / float(n - 1)
            for j in range(n)
        ]
    return torch.stack(weights, dim=-1), torch.stack(slopes, dim=-1)


def stencil(
    place: torch.Tensor, shape: list[int], order: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Mesh points around atoms and their weights.

    Parameters
    ----------
    place : torch.Tensor, float64, shape (N, 3)
        Positions in mesh spacings, inside or outside the cell.
    shape : list of 3 int
        Mesh points along the cell vectors.
    order : int
        Spline order p.
    dtype : torch.dtype
        Precision of the weights and of meshes.
    """
    if not torch.jit.is_scripting():
        if compiled(place):
            single = dtype == torch.float32
            return torch.ops.openmm_nequiplr.mesh_stencil(place, shape, order, single)
    floor = torch.floor(place)
    weights, slopes = spline_weights(place - floor, order)
    size = torch.tensor(shape, device=place.device)
    steps = torch.arange(order, device=place.device)
    index = (floor.long().unsqueeze(-1) + steps) % size.unsqueeze(-1)
    flat = index[:, 0].unsqueeze(-1) * shape[1] + index[:, 1].unsqueeze(1)
    flat = (flat.unsqueeze(-1) * shape[2] + index[:, 2].unsqueeze(1).unsqueeze(1)).flatten(1)
    plane = (weights[:, 1].unsqueeze(-1) * weights[:, 2].unsqueeze(1)).flatten(1)
    product = (weights[:, 0].unsqueeze(-1) * plane.unsqueeze(1)).flatten(1)
    return [flat, product.to(dtype), weights.to(dtype), slopes.to(dtype)]


def spread(state: list[torch.Tensor], charges: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Spread charges, float64, shape (N,), to a mesh of shape (M1, M2, M3)."""
    if not torch.jit.is_scripting():
        if compiled(charges):
            return torch.ops.openmm_nequiplr.mesh_spread(state, charges, shape)
    values = (state[1] * charges.to(state[1].dtype).unsqueeze(-1)).flatten()
    points = shape[0] * shape[1] * shape[2]
    mesh = torch.zeros([points], dtype=values.dtype, device=values.device)
    return mesh.index_add(0, state[0].flatten(), values).reshape(shape)


def _around(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """Values at the mesh points around each atom, shape (N, p³)."""
    return mesh.flatten().index_select(0, state[0].flatten()).reshape(state[0].shape)


def gather(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """Interpolate a mesh, shape (M1, M2, M3), at the atoms; float64, shape (N,)."""
    if not torch.jit.is_scripting():
        if compiled(mesh):
            return torch.ops.openmm_nequiplr.mesh_gather(state, mesh)
    return (_around(state, mesh) * state[1]).sum(dim=-1).to(torch.float64)


def gather_gradient(state: list[torch.Tensor], mesh: torch.Tensor) -> torch.Tensor:
    """Interpolate a mesh and its gradient per mesh spacing at the atoms; float64, shape (N, 4)."""
    if not torch.jit.is_scripting():
        if compiled(mesh):
            return torch.ops.openmm_nequiplr.mesh_gather_gradient(state, mesh)
    weights, slopes = state[2], state[3]
    order = weights.shape[2]
    cube = _around(state, mesh).reshape(-1, order, order, order)
    rows = torch.einsum("nabc,nc->nab", [cube, weights[:, 2]])
    ends = torch.einsum("nabc,nc->nab", [cube, slopes[:, 2]])
    x, y, by_x, by_y = weights[:, 0], weights[:, 1], slopes[:, 0], slopes[:, 1]
    parts = [
        torch.einsum("nab,na,nb->n", [rows, x, y]),
        torch.einsum("nab,na,nb->n", [rows, by_x, y]),
        torch.einsum("nab,na,nb->n", [rows, x, by_y]),
        torch.einsum("nab,na,nb->n", [ends, x, y]),
    ]
    return torch.stack(parts, dim=-1).to(torch.float64)


register(
    "mesh_stencil(Tensor place, int[] shape, int order, bool single) -> Tensor[]",
    "mesh",
    "stencil",
)
register("mesh_spread(Tensor[] state, Tensor charges, int[] shape) -> Tensor", "mesh", "spread")
register("mesh_gather(Tensor[] state, Tensor mesh) -> Tensor", "mesh", "gather")
register("mesh_gather_gradient(Tensor[] state, Tensor mesh) -> Tensor", "mesh", "gather_gradient")
