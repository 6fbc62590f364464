"""What all tests share: few threads, a headless matplotlib, seeds, and small random models."""

from __future__ import annotations

import functools
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# Several test processes share the cores (pytest -n): one thread each, before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):
        os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Triton interprets its kernels on the CPU, if that is said before it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest

if TYPE_CHECKING:
    from ase import Atoms

    from openmm_nequiplr.model import NequIPLRPotential


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first, so that no worker is left with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random numbers, whatever ran before it."""
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (ASE and user code may use the global generator)


@pytest.fixture(autouse=True)
def _plain_graphs(request: pytest.FixtureRequest) -> Any:
    """TorchScript runs graphs as they are, which spares seconds, except where a test is marked.

    OpenMM-Torch, where simulations may use it, runs optimised graphs alone.
    """
    import torch

    with_torch_force = "simulation" in request.path.parts and find_spec("openmmtorch") is not None
    optimized = "optimized" in request.keywords or with_torch_force
    with torch.jit.optimized_execution(optimized):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def make_model():
    """Factory of small models with random weights in double precision; equal calls share one."""

    @functools.cache
    def make(**options: Any) -> NequIPLRPotential:
        import torch

        from openmm_nequiplr.model import ModelConfig, NequIPLRPotential

        settings: dict[str, Any] = {
            "type_names": ("O", "Na", "Cl"),
            "r_max": 3.5,
            "num_layers": 2,
            "num_layers_charge": 1,
            "l_max": 1,
            "parity": True,
            "num_features": 4,
            "avg_num_neighbors": 6.0,
            "invariant_neurons": 8,
        }
        torch.manual_seed(7)
        model = NequIPLRPotential(ModelConfig(**(settings | options))).double().eval()
        with torch.no_grad():  # charges of a few tenths of e, as in real models
            if model.electronegativity_stage is not None:
                model.electronegativity_stage.readout.scalar.weight.mul_(10.0)
            types = torch.arange(1.0, 1.0 + len(model.config.type_names))
            if model.charge_offset is not None:
                model.charge_offset.copy_((types - 2.2) * 0.6)
                model.electronegativity_scales.copy_(0.8 + 0.1 * types)
                model.electronegativity_shifts.copy_(0.2 * types)
        model.energy_shifts.copy_(-types)
        return model

    return make


@pytest.fixture(scope="session")
def shaken():
    """Function: a copy of a model with slightly other weights."""

    def shake(model: NequIPLRPotential, seed: int) -> NequIPLRPotential:
        import copy

        import torch

        other = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in other.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter += 0.02 * noise
        return other

    return shake


@pytest.fixture
def molecule(rng: np.random.Generator) -> Atoms:
    """A distorted cluster of seven atoms, without a cell."""
    from ase import Atoms

    sites = np.array(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], float
    )
    positions = 2.4 * sites + rng.uniform(-0.2, 0.2, size=sites.shape)
    return Atoms("NaCl2ONa2Cl", positions)


@pytest.fixture
def crystal(rng: np.random.Generator) -> Atoms:
    """A distorted triclinic cell of six atoms, narrower than twice the cutoff."""
    from ase import Atoms

    cell = np.array([[5.2, 0.0, 0.0], [1.1, 5.0, 0.0], [-0.7, 0.9, 4.8]])
    sites = np.array(
        [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 0.5]]
    )
    positions = sites @ cell + rng.uniform(-0.2, 0.2, size=sites.shape)
    return Atoms("NaClClONaCl", positions, cell=cell, pbc=True)
