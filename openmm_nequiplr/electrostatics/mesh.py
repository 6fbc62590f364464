"""Gaussian charges in a periodic cell in O(N log N): smooth particle mesh Ewald.

K is that of :class:`.ewald.EwaldCoulomb`. On the mesh all charges are Gaussians of the width η/√2,
which the mesh resolves; it uses B-splines (Essmann et al. 1995, doi:10.1063/1.470117) and the
influence function of Hockney and Eastwood (1988). The pairs add k_e [erf(r/√2γ) − erf(r/√2η)]/r.
Everything that depends on the geometry alone is computed once. A product K q then costs a sparse
matrix product, a spread, two real FFTs and a gather (:mod:`openmm_nequiplr.ops`).
"""

# TorchScript compiles the operator and reads its annotations: no postponed ones here
import math

import torch

from ..derivatives import known_gradient
from ..neighbors import neighbor_list
from ..ops import mesh as ops
from ..ops import pairs as pair_ops
from .gaussian import GaussianScreening, self_coefficient
from .mesh_geometry import MeshGeometry
from .operator import CoulombOperator
from .reciprocal import reciprocal
from .splitting import MeshParameters


class MeshCoulomb(CoulombOperator):
    """Coulomb operator of N Gaussian charges in a large periodic cell.

    ``energy`` is differentiable once, in charges, positions and cell; the other methods are not
    differentiable.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    geometry : MeshGeometry
        A geometry that serves these positions and this cell.
    coulomb_constant : float, eV Å/e²
    dtype : torch.dtype
        Precision of the mesh and of the pair coefficients; float32 suffices for accuracies down to
        about 1e-6.
    """

    rows: list[torch.Tensor]
    terms: list[torch.Tensor]
    state: list[torch.Tensor]

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        geometry: MeshGeometry,
        coulomb_constant: float,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.constant, self.single = coulomb_constant, dtype == torch.float32
        self.widths = widths
        self.made_for = torch.zeros_like(cell.detach())
        self.take_parameters(geometry.parameters)
        self.take_pairs(
            geometry.first, geometry.second, geometry.images, geometry.image, geometry.kind,
            geometry.gammas,
        )  # fmt: skip
        self.setup(positions, cell)

    def take_parameters(self, parameters: MeshParameters) -> None:
        """Set the splitting and the mesh."""
        self.smoothing_width, self.cutoff = parameters.eta, parameters.cutoff
        self.shape, self.order = parameters.shape, parameters.order
        dtype = torch.float32 if self.single else torch.float64
        self.field = torch.zeros(self.shape, dtype=dtype, device=self.widths.device)
        self.made_for = torch.zeros_like(self.made_for)
        self.gaussian_self = self.constant * self_coefficient(self.widths)
        point = self.constant * math.sqrt(2.0 / math.pi) / self.smoothing_width
        self.own = self.gaussian_self - point

    def take_pairs(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        images: torch.Tensor,
        image: torch.Tensor,
        kind: torch.Tensor,
        gammas: torch.Tensor,
    ) -> None:
        """Set the list of pairs; see :class:`.mesh_geometry.MeshGeometry`."""
        self.rows = pair_ops.pair_rows(first, second, self.widths.shape[0])
        self.images, self.image, self.kind, self.gammas = images, image, kind, gammas
        self.renewed = True  # the translations are to be computed

    def setup(self, positions: torch.Tensor, cell: torch.Tensor, same_cell: bool = False) -> None:
        """Set the positions, shape (N, 3), Å, and a cell for which the lists are valid.

        ``same_cell`` states that the cell has not changed.
        """
        self.positions, self.cell = positions, cell
        dtype = torch.float32 if self.single else torch.float64
        with torch.no_grad():
            points, box = positions.detach(), cell.detach()
            if not (same_cell or torch.equal(box, self.made_for)):
                smooth, factors = smooth_influence(
                    box, self.smoothing_width, self.shape, self.order, self.constant
                )
                # without the splines: averaged over the mesh, the diagonal is the Ewald sum's
                self.smooth_diagonal = (smooth * half_weights(smooth, self.shape)).sum()
                self.influence = (smooth * factors).to(dtype)
                self.made_for, self.scale = box.clone(), self._scale(box)
                self.renewed = True
            if self.renewed:
                self.translations, self.renewed = self.images @ box, False
            self.state = ops.stencil(points @ self.scale, self.shape, self.order, dtype)
            self.terms = pair_ops.pair_terms(
                self.rows, points, self.translations, self.image, self.gammas, self.kind,
                self.smoothing_width, self.cutoff, self.constant, dtype,
            )  # fmt: skip

    def _scale(self, cell: torch.Tensor) -> torch.Tensor:
        """Map from positions to mesh coordinates, shape (3, 3), 1/Å; differentiable."""
        shape = torch.tensor(self.shape, dtype=cell.dtype, device=cell.device)
        return torch.linalg.inv(cell) * shape

    def _waves(self, charges: torch.Tensor) -> torch.Tensor:
        """Fourier transform ρ(k) of the charges on the mesh."""
        return torch.fft.rfftn(ops.spread(self.state, charges, self.shape))

    def _field(self, waves: torch.Tensor) -> torch.Tensor:
        """Smooth potential on the mesh, shape (M1, M2, M3), eV/e, of charges with transform ρ."""
        return torch.fft.irfftn(waves * self.influence, s=self.shape, norm="forward")

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        with torch.no_grad():
            self.field = self._field(self._waves(charges))
            smooth = ops.gather(self.state, self.field)
            return pair_ops.pair_product(self.rows, self.terms, charges, self.own, smooth)

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e², to the accuracy of the mesh."""
        atoms, images = pair_ops.pair_values(self.rows, self.terms)
        return (self.own + self.smooth_diagonal).index_add(0, atoms, 2.0 * images)

    @torch.jit.unused
    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e², computed column by column."""
        count = len(self.widths)
        unit = torch.eye(count, dtype=self.widths.dtype, device=self.widths.device)
        return torch.stack([self.potential(row) for row in unit], dim=1)

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV."""
        return self._difference(charges, subtracted, fields, True)

    def rest_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) without the smooth part of the point-charge Ewald sums of q and p, eV."""
        return self._difference(charges, subtracted, None, False)

    def _difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None,
        smooth: bool,
    ) -> torch.Tensor:
        """e(q) − e(p), a scalar, eV, with or without the smooth part."""
        virial = self.cell.requires_grad
        both = [charges.detach(), subtracted.detach()]
        with torch.no_grad():
            value, by_position, by_image = pair_ops.pair_gradient(
                self.rows, self.terms, self.positions.detach(), self.translations, self.image,
                both[0], both[1], virial,
            )  # fmt: skip
            inputs, slopes = [self.positions], [by_position]
            if virial:
                inputs.append(self.cell)
                slopes.append(self.images.t() @ by_image)
            potentials: list[torch.Tensor] = []
            if charges.requires_grad or subtracted.requires_grad:
                potentials = [pair_ops.pair_product(self.rows, self.terms, each) for each in both]
        rest: torch.Tensor | None = None
        own = self.gaussian_self
        if smooth:
            own = self.own
            seen, squares = self._seen(both, fields if not virial else None)
            with torch.no_grad():
                parts = both[0].unsqueeze(-1) * seen[0]
                parts = torch.addcmul(parts, both[1].unsqueeze(-1), seen[1], value=-1.0)
                value, by_place = torch.add(value, parts[:, 0].sum(), alpha=0.5), parts[:, 1:]
                for k in range(len(potentials)):
                    potentials[k] = potentials[k] + seen[k][:, 0]
                if not virial:
                    slopes[0] = torch.addmm(by_position, by_place, self.scale.t())
            if virial:  # the cell enters through the mesh coordinates and through A
                inputs.append(self.positions @ self._scale(self.cell))
                slopes.append(by_place)
                strained = self._strained(squares)
                rest = strained - strained.detach()
        for k, each in enumerate([charges, subtracted]):
            if each.requires_grad:
                inputs.append(each)
                slopes.append(potentials[k] if k == 0 else -potentials[k])
        energy = known_gradient(
            "the energy of a mesh sum has one derivative, and it", value, inputs, slopes
        )
        own_squares = torch.addcmul(charges * charges, subtracted, subtracted, value=-1.0)
        energy = torch.add(energy, own @ own_squares, alpha=0.5)
        return energy if rest is None else energy + rest

    def _seen(
        self, both: list[torch.Tensor], fields: list[torch.Tensor] | None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Smooth potentials and their gradients at the atoms, and |ρ(k)|² of q minus that of p.

        The latter is empty if the fields are given.
        """
        with torch.no_grad():
            squares = self.made_for[:0]
            if fields is None or fields[0].numel() == 0:
                waves = [self._waves(each) for each in both]
                fields = [self._field(each) for each in waves]
                exact = [each.abs().to(self.made_for.dtype) for each in waves]
                squares = exact[0].square() - exact[1].square()
            return [ops.gather_gradient(self.state, field) for field in fields], squares

    def _strained(self, squares: torch.Tensor) -> torch.Tensor:
        """½ Σ_k A(k) |ρ(k)|², eV, differentiable in the cell."""
        smooth, factors = smooth_influence(
            self.cell, self.smoothing_width, self.shape, self.order, self.constant
        )
        weights = factors * half_weights(smooth, self.shape)
        return 0.5 * (smooth * weights * squares).sum()

    @torch.jit.unused
    def screening(self) -> GaussianScreening:
        """Correction from the point-charge Ewald sum of the same cell to this operator (slow).

        It needs its own neighbour search, as the geometry lists the pairs of the mesh only.
        """
        points, cell = (x.detach().cpu().numpy() for x in (self.positions, self.cell))
        cutoff = self.cutoff / self.smoothing_width * math.sqrt(2.0) * float(self.widths.max())
        found = neighbor_list(points, cell, True, cutoff, full=False)
        pairs, shifts = (x.to(self.cell.device) for x in found)
        vectors = self.positions.index_select(0, pairs[1])
        vectors = vectors - self.positions.index_select(0, pairs[0]) + shifts @ self.cell
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        return GaussianScreening(pairs, distance, self.widths, self.constant)


def half_weights(half_mesh: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Multiplicity of the k-vectors of a half mesh along the last axis, shape (M3//2 + 1,)."""
    weights = torch.full_like(half_mesh[0, 0], 2.0)
    weights[0] = 1.0
    if shape[2] % 2 == 0:
        weights[-1] = 1.0
    return weights


def smooth_influence(
    cell: torch.Tensor, eta: float, shape: list[int], order: int, constant: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors of A(k) in the smooth energy ½ Σ_k A(k) |ρ(k)|² over the half mesh.

    Parameters
    ----------
    cell : torch.Tensor, float64, shape (3, 3), Å
    eta : float, Å
    shape : list of 3 int
    order : int
    constant : float, eV Å/e²

    Returns
    -------
    smooth : torch.Tensor, float64, shape (M1, M2, M3//2 + 1), eV/e²
        4π k_e/(V k²) exp(−η²k²/2), and the neutralising background at k = 0; differentiable in the
        cell.
    splines : torch.Tensor, float64, shape (M1, M2, M3//2 + 1)
        W²/(Σ_m W²)² with the Fourier transform W of the splines and its aliases m: the influence
        function of Hockney and Eastwood without the aliases of the Gaussian interaction. It is zero
        at the Nyquist frequency of an even mesh, where the sign of k is ambiguous.
    """
    rows = reciprocal(cell)
    kvectors = torch.zeros([1, 1, 1, 3], dtype=cell.dtype, device=cell.device)
    splines = torch.ones([1, 1, 1], dtype=cell.dtype, device=cell.device)
    for axis, points in enumerate(shape):
        whole = torch.arange(points, dtype=cell.dtype, device=cell.device)
        if axis == 2:
            whole = whole[: points // 2 + 1]
        else:
            whole = torch.where(whole >= float((points + 1) // 2), whole - points, whole)
        size = [1, 1, 1]
        size[axis] = whole.shape[0]
        kvectors = kvectors + whole.reshape(size).unsqueeze(-1) * rows[axis]
        frequency = whole / float(points)
        total = torch.zeros_like(frequency)
        for alias in range(-4, 5):
            total = total + torch.sinc(frequency + float(alias)) ** (2 * order)
        factor = torch.sinc(frequency) ** (2 * order) / (total * total)
        if points % 2 == 0:
            factor[points // 2] = 0.0
        splines = splines * factor.reshape(size)
    k_squared = (kvectors * kvectors).sum(dim=-1)
    origin = torch.zeros_like(k_squared)
    origin[0, 0, 0] = 1.0
    smooth = torch.exp(-0.5 * eta * eta * k_squared) / (k_squared + origin)
    smooth = smooth - origin * (1.0 + 0.5 * eta * eta)  # 1/k² was 1 there
    return 4.0 * math.pi * constant / torch.linalg.det(cell).abs() * smooth, splines
