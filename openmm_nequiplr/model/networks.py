"""Networks of a potential: electronegativities, and atomic energies that depend on charges."""

# TorchScript compiles them and reads annotations: no postponed ones here
import torch

from ..buffers import ExactBuffers
from ..errors import InputError, describe
from ..nn import DistanceFloor, ZBLRepulsion, saturate
from .config import ModelConfig
from .stages import EdgeHarmonics, ElectronegativityStage, EnergyStage

#: Buffers that stay float64 when the network is cast; the first four are stored in model files.
_EXACT = (
    "energy_shifts",
    "energy_scales",
    "electronegativity_shifts",
    "electronegativity_scales",
    "widths",
)


class Networks(ExactBuffers):
    """Weights, per-element parameters and networks; TorchScript compiles this module."""

    __jit_unused_properties__ = ("dtype", "device")

    energy_shifts: torch.Tensor
    energy_scales: torch.Tensor
    electronegativity_shifts: torch.Tensor
    electronegativity_scales: torch.Tensor
    widths: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise InputError(describe("config", config, "a ModelConfig"))
        self.config = config
        #: Free text saved with the model, such as its training data and errors.
        self.metadata: dict[str, str] = {}
        count = len(config.type_names)
        self.harmonics = EdgeHarmonics(config)
        #: None without equilibration.
        self.electronegativity_stage = (
            ElectronegativityStage(config) if config.equilibration else None
        )
        first = self.electronegativity_stage
        self.energy_stage = EnergyStage(
            config,
            first.convolutions.irreps_out if first and config.shared_features else None,
        )
        self.hardness_parameter = torch.nn.Parameter(
            torch.ones(count), requires_grad=config.equilibration
        )
        self.charge_offset = (
            torch.nn.Parameter(torch.zeros(count)) if config.effective_charges else None
        )
        for name in _EXACT[:4]:
            start = torch.zeros if name.endswith("shifts") else torch.ones
            self.register_buffer(name, start(count, dtype=torch.float64))
        self.repulsion = (
            ZBLRepulsion(config.numbers, config.repulsion_cutoffs) if config.zbl else None
        )
        self.bound = config.electronegativity_bound or 0.0
        self.r_max, self.r_max_charge = config.r_max, config.charge_cutoff
        self.shared_features = config.equilibration and config.shared_features
        floors = config.distance_floors
        self.distance_floor = None if floors is None else DistanceFloor(floors)
        widths = torch.tensor(config.widths, dtype=torch.float64)
        self.register_buffer("widths", widths, persistent=False)
        self.to(torch.float32)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network."""
        return self.hardness_parameter.dtype

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.hardness_parameter.device

    def hardness(self, types: torch.Tensor) -> torch.Tensor:
        """Hardness J of each atom, float64, shape (N,), eV/e²."""
        root = self.hardness_parameter.to(torch.float64)
        return (self.config.hardness_min + root * root)[types]

    def edge_features(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lengths, shape (E,), and harmonics, shape (E, (l_max + 1)²), in the network's dtype."""
        dtype = self.hardness_parameter.dtype
        length = torch.linalg.vector_norm(vectors, dim=-1).to(dtype)
        return length, self.harmonics(vectors.to(dtype))

    def _edges_within(
        self,
        cutoff: float,
        types: torch.Tensor,
        index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Edges of a stage: atoms, lengths with the distance floor applied, harmonics."""
        if cutoff < max(self.r_max, self.r_max_charge) and not length.is_cuda:
            inside = torch.nonzero(length < cutoff).squeeze(-1)
            index, length = index.index_select(1, inside), length.index_select(0, inside)
            harmonics = harmonics.index_select(0, inside)
        if self.distance_floor is not None:
            length = self.distance_floor(types, index[0], index[1], length)
        return index, length, harmonics

    def first_stage(
        self,
        types: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Electronegativities, and the features shared with the energy stage.

        Parameters
        ----------
        types : torch.Tensor, int64, shape (N,)
        edge_index : torch.Tensor, int64, shape (2, E)
        length, harmonics : torch.Tensor
            Results of :meth:`edge_features`.

        Returns
        -------
        chi : torch.Tensor, float64, shape (N,), eV/e
            Zero without equilibration.
        features : torch.Tensor, shape (N, dim)
            In the network's dtype; dim is 0 if none are shared.
        """
        shifts = self.electronegativity_shifts.index_select(0, types)
        none = harmonics.new_empty([types.shape[0], 0])
        if self.electronegativity_stage is None:
            return torch.zeros_like(shifts), none
        edges, length, harmonics = self._edges_within(
            self.r_max, types, edge_index, length, harmonics
        )
        raw, features = self.electronegativity_stage(types, edges, length, harmonics)
        raw = saturate(raw.to(torch.float64), self.bound)
        chi = torch.addcmul(shifts, self.electronegativity_scales.index_select(0, types), raw)
        return chi, features if self.shared_features else none

    def atomic_energies(
        self,
        types: torch.Tensor,
        charges: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        features: torch.Tensor,
    ) -> torch.Tensor:
        """Short-range energy of each atom with its half of the ZBL repulsion, float64, (N,), eV.

        The shifts are not included, see :meth:`reference_energy`.

        Parameters
        ----------
        charges : torch.Tensor, float64, shape (N,), e
        features : torch.Tensor
            Result of :meth:`first_stage`.
        types, edge_index, length, harmonics
            As for :meth:`first_stage`.
        """
        edges, seen, directions = self._edges_within(
            self.r_max_charge, types, edge_index, length, harmonics
        )
        own = charges.to(harmonics.dtype)
        atomic = self.energy_stage(types, own, edges, seen, directions, features)
        atomic = self.energy_scales.index_select(0, types) * atomic.to(torch.float64)
        if self.repulsion is not None:
            first, second = edge_index[0], edge_index[1]
            near, pairs = self.repulsion(types, first, second, length.to(torch.float64))
            atomic = atomic.index_add(0, first.index_select(0, near), 0.5 * pairs)
        return atomic
