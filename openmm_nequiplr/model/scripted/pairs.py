"""Neighbour search inside the graph: a cell list in torch with a skin."""

import math

import torch

from ...lattice import reduction
from ...neighbors import crowding


def cell_heights(cell: torch.Tensor) -> torch.Tensor:
    """Heights of a cell, the distances between opposite faces, shape (3,), Å."""
    return 1.0 / torch.linalg.vector_norm(torch.linalg.inv(cell), dim=0)


def _bins(heights: list[float], cutoff: float, count: int) -> list[int]:
    """Number of bins along each axis: at least as wide as the cutoff, in total about 2 per atom."""
    bins: list[int] = []
    for height in heights:
        bins.append(int(max(1.0, min(math.floor(height / cutoff), 1e6))))
    total = float(bins[0]) * float(bins[1]) * float(bins[2])
    most = float(max(8, 2 * count))
    if total > most:
        shrink = math.pow(most / total, 1.0 / 3.0)
        for axis in range(3):
            bins[axis] = max(1, math.floor(bins[axis] * shrink))
    return bins


def _half_offsets(reach: list[int]) -> list[list[int]]:
    """Offsets between bins within reach: the origin, and one of each pair of opposite offsets."""
    offsets = [[0, 0, 0]]
    for x in range(reach[0] + 1):
        for y in range(-reach[1], reach[1] + 1):
            for z in range(-reach[2], reach[2] + 1):
                if x > 0 or y > 0 or (y == 0 and z > 0):
                    offsets.append([x, y, z])
    return offsets


def half_pairs(
    positions: torch.Tensor, cell: torch.Tensor, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every pair of atoms or images within a cutoff once, in O(N).

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
        May lie outside the cell.
    cell : torch.Tensor, float64, shape (3, 3), Å
        Rows are lattice vectors. The cell may be triclinic and smaller than the cutoff.
    cutoff : float, Å

    Returns
    -------
    first, second : torch.Tensor, int64, shape (P,)
    shift : torch.Tensor, float64, shape (P, 3)
        Integer images: ``r = x[second] - x[first] + shift @ cell``.
    """
    count = positions.shape[0]
    device = positions.device
    fraction = positions @ torch.linalg.inv(cell)
    whole = torch.floor(fraction)
    fraction = fraction - whole
    wrapped = fraction @ cell
    heights: list[float] = cell_heights(cell).tolist()
    bins = _bins(heights, cutoff, count)
    reach: list[int] = []
    for axis in range(3):
        reach.append(math.ceil(cutoff * bins[axis] / heights[axis]))
    number = torch.tensor(bins, device=device)
    place = torch.minimum((fraction * number).long(), number - 1)
    flat = (place[:, 0] * bins[1] + place[:, 1]) * bins[2] + place[:, 2]
    order = torch.argsort(flat)
    members = torch.bincount(flat, minlength=bins[0] * bins[1] * bins[2])
    begin = torch.cumsum(members, 0) - members
    atoms = torch.arange(count, device=device)
    firsts: list[torch.Tensor] = []
    seconds: list[torch.Tensor] = []
    shifts: list[torch.Tensor] = []
    for offset in _half_offsets(reach):
        target = place + torch.tensor(offset, device=device)
        image = torch.div(target, number, rounding_mode="floor")
        target = target - image * number
        bin_of = (target[:, 0] * bins[1] + target[:, 1]) * bins[2] + target[:, 2]
        found = members.index_select(0, bin_of)
        a = torch.repeat_interleave(atoms, found)
        start = begin.index_select(0, bin_of) - (torch.cumsum(found, 0) - found)
        slot = torch.arange(a.shape[0], device=device) + start.index_select(0, a)
        b = order.index_select(0, slot)
        image = image.to(torch.float64)
        vector = wrapped.index_select(0, b) - (wrapped - image @ cell).index_select(0, a)
        inside = (vector * vector).sum(dim=-1) < cutoff * cutoff
        if offset[0] == 0 and offset[1] == 0 and offset[2] == 0:
            inside = inside & (b > a)
        kept = torch.nonzero(inside).squeeze(-1)
        a, b = a.index_select(0, kept), b.index_select(0, kept)
        firsts.append(a)
        seconds.append(b)
        shifts.append((image + whole).index_select(0, a) - whole.index_select(0, b))
    return torch.cat(firsts), torch.cat(seconds), torch.cat(shifts)


def close_gaps(positions: torch.Tensor, reach: float) -> torch.Tensor:
    """Positions, shape (N, 3), Å, with gaps along each axis reduced to at most ``reach``.

    Vectors of pairs closer than ``reach`` are unchanged, and other pairs stay at least this far
    apart. The volume of the search is then limited even if atoms are far apart.
    """
    places, order = positions.sort(dim=0)
    steps = (places[1:] - places[:-1]).clamp(max=reach)
    closed = torch.cat((torch.zeros_like(places[:1]), torch.cumsum(steps, 0)))
    return torch.empty_like(closed).scatter(0, order, closed)


class ReducedCell(torch.nn.Module):
    """Reduction of a cell to a basis of short vectors, see :mod:`openmm_nequiplr.lattice`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("given", torch.zeros(3, 3, dtype=torch.float64))
        self.register_buffer("made", torch.zeros(3, 3, dtype=torch.float64))

    def forward(self, cell: torch.Tensor) -> torch.Tensor:
        """Reduced cell, shape (3, 3), Å, cached while the cell does not change."""
        if not torch.equal(cell, self.given):
            volume = float(torch.linalg.det(cell).abs())
            if not (math.isfinite(volume) and volume > 1e-6):
                raise RuntimeError("cell: expected three independent vectors of finite length")
            rows: list[list[float]] = cell.tolist()
            basis = torch.tensor(reduction(rows), dtype=cell.dtype, device=cell.device)
            self.made = basis @ cell
            self.given = cell.clone()
        return self.made


class PairList(torch.nn.Module):
    """Verlet list of the pairs within two cutoffs.

    The skin affects only the time, as users of the list apply the exact cutoff.

    Parameters
    ----------
    near_cutoff : float, Å
        Cutoff of the network.
    periodic : bool
    skin : float, Å
    slab : bool
        Whether pairs of the network exclude images along the third cell vector; positions are then
        those of the unwrapped slab.
    """

    def __init__(self, near_cutoff: float, periodic: bool, skin: float, slab: bool = False) -> None:
        super().__init__()
        self.near_cutoff, self.periodic, self.skin = near_cutoff, periodic, skin
        self.slab = slab
        empty = torch.zeros(0, dtype=torch.float64)
        self.register_buffer("reference", empty.reshape(0, 3))
        self.register_buffer("reference_cell", torch.eye(3, dtype=torch.float64))
        self.register_buffer("first", empty.long())
        self.register_buffer("second", empty.long())
        self.register_buffer("shift", empty.reshape(0, 3))
        self.register_buffer("near", empty.long())
        self.reach = 0.0
        self.searches = 0

    def _serves(self, moved: torch.Tensor, strain: torch.Tensor, far_cutoff: float) -> bool:
        largest = float(torch.linalg.vector_norm(moved, dim=-1).max())
        least = float(torch.linalg.svdvals(strain).min()) if self.periodic else 1.0
        if not (largest < self.skin and least > 0.5):
            return False
        near = (self.near_cutoff + 2.0 * largest) / least <= self.near_cutoff + self.skin
        return near and (far_cutoff + 2.0 * largest) / least <= self.reach

    def update(
        self, positions: torch.Tensor, cell: torch.Tensor, far_cutoff: float
    ) -> torch.Tensor:
        """Update the list for a geometry; return the images of the positions to which it refers.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å
            Rows are lattice vectors; ignored if not periodic.
        far_cutoff : float, Å
            Cutoff of the Coulomb pairs; 0 for none.

        Returns
        -------
        torch.Tensor, float64, shape (N, 3), Å
        """
        if self.reference.shape[0] == positions.shape[0]:
            strain = torch.linalg.solve(self.reference_cell, cell)
            moved = positions - self.reference
            if self.periodic:
                moved = positions - self.reference @ strain
                images = torch.round(moved @ torch.linalg.inv(cell))
                if self.slab:
                    images[:, 2] = 0.0
                jumps = images @ cell
                positions, moved = positions - jumps, moved - jumps
            if self._serves(moved, strain, far_cutoff):
                return positions
        self._search(positions, cell, max(far_cutoff, self.near_cutoff) + self.skin)
        return positions

    def _search(self, positions: torch.Tensor, cell: torch.Tensor, reach: float) -> None:
        box, points = cell, positions
        if not self.periodic:  # a cell so large that images are beyond the cutoff
            points = close_gaps(positions, reach)
            box = torch.diag(1.01 * (points.max(dim=0)[0] + reach))
        heights: list[float] = cell_heights(box).tolist()
        message = crowding(heights, positions.shape[0], reach)
        if len(message) > 0:
            raise RuntimeError(message)
        first, second, shift = half_pairs(points, box, reach)
        if not self.periodic:
            shift = torch.zeros_like(shift)
        vector = positions.index_select(0, second) - positions.index_select(0, first)
        distance = torch.linalg.vector_norm(vector + shift @ box, dim=-1)
        inside = distance < self.near_cutoff + self.skin
        if self.slab:
            inside = inside & (shift[:, 2] == 0.0)
        self.near = torch.nonzero(inside).squeeze(-1)
        self.first, self.second, self.shift = first, second, shift
        self.reference, self.reference_cell = positions.clone(), cell.clone()
        self.reach = reach
        self.searches += 1

    def forward(
        self, positions: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """First and second atoms, shape (P,), and vectors, shape (P, 3), Å, of the network's pairs.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å
            Result of :meth:`update`.
        cell : torch.Tensor, float64, shape (3, 3), Å
        """
        first = self.first.index_select(0, self.near)
        second = self.second.index_select(0, self.near)
        vector = positions.index_select(0, second) - positions.index_select(0, first)
        if self.periodic:
            vector = vector + self.shift.index_select(0, self.near) @ cell
        inside = torch.linalg.vector_norm(vector, dim=-1) < self.near_cutoff
        near = torch.nonzero(inside).squeeze(-1)
        return (
            first.index_select(0, near),
            second.index_select(0, near),
            vector.index_select(0, near),
        )
