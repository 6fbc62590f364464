"""A small ionic model and the structures that the OpenMM tests share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
import pytest

from .mixture import make_mixture, make_salt_and_water
from .twins import PLATFORMS, precise_platform

if TYPE_CHECKING:
    from ase import Atoms

    from openmm_nequiplr.model import NequIPLRPotential


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> tuple[openmm.Platform, dict[str, str]]:
    """Every platform in turn, in double precision where that is a choice."""
    return precise_platform(request.param)


@pytest.fixture(scope="session")
def ionic_model(make_model: Any, rock_salt: Atoms) -> NequIPLRPotential:
    """Random weights in double precision, scaled so that charges reach 0.6 e in rock salt."""
    return _with_charges(make_model(r_max=3.2), rock_salt, 0.6)


@pytest.fixture(scope="session")
def tiny_model(make_model: Any, tiny_salt: Atoms) -> NequIPLRPotential:
    """The same, faster still and for the tiny salt."""
    return _with_charges(make_model(r_max=3.2, num_layers=1), tiny_salt, 0.6)


def _with_charges(model: NequIPLRPotential, atoms: Atoms, largest: float) -> NequIPLRPotential:
    """A copy of a model whose charges in neutral ``atoms`` reach ``largest`` (e)."""
    import torch

    from openmm_nequiplr.model import Evaluator
    from openmm_nequiplr.model.io import deserialize_model, serialize_model

    data = serialize_model(model)  # with some versions of torch a model cannot be deep-copied
    model = deserialize_model(data)
    graph = model.build_graph(atoms.numbers, atoms.positions, atoms.cell.array, True)
    charges, _ = Evaluator(deserialize_model(data)).charges(graph)
    with torch.no_grad():  # charges of a neutral system are proportional to the electronegativity
        model.electronegativity_stage.readout.scalar.weight.mul_(largest / np.abs(charges).max())
        model.energy_scales.fill_(0.2)
    return model


@pytest.fixture(scope="session")
def tiny_salt() -> Atoms:
    """16 shaken atoms of NaCl in a triclinic cell, 6.5 Å wide."""
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", 5.64).repeat(2)
    atoms.rattle(0.08, seed=4)
    return atoms


@pytest.fixture(scope="session")
def tiny_slab(tiny_salt: Atoms) -> Atoms:
    """The same, polar, with 13 Å of vacuum and an atom at another image."""
    slab = tiny_salt.copy()
    slab.set_cell([[7.97, 0.0, 0.0], [3.98, 6.9, 0.0], [0.0, 0.0, 20.0]])
    slab.positions = tiny_salt.get_scaled_positions() @ (slab.cell.array * [1.0, 1.0, 0.33])
    slab.positions[slab.symbols == "Na", 2] += 0.3
    slab.positions[5, 2] -= 20.0
    slab.pbc = (True, True, False)
    return slab


@pytest.fixture(scope="session")
def rock_salt() -> Atoms:
    """64 shaken atoms of NaCl in a cubic box of 11.28 Å."""
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True).repeat(2)
    atoms.rattle(0.08, seed=3)
    return atoms


@pytest.fixture(scope="session")
def skewed_salt() -> Atoms:
    """36 atoms in a triclinic cell, not in OpenMM's orientation."""
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", 5.64).repeat((3, 3, 2))
    atoms.rattle(0.08, seed=4)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    atoms.set_cell(atoms.cell.array @ rotation, scale_atoms=False)
    atoms.positions = atoms.positions @ rotation
    return atoms


@pytest.fixture(scope="session")
def cluster() -> Atoms:
    """Eight shaken atoms of NaCl without a box."""
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    atoms.rattle(0.1, seed=5)
    atoms.pbc = False
    atoms.cell = None
    return atoms


@pytest.fixture(scope="session")
def inputs(
    tmp_path_factory: Any, ionic_model: NequIPLRPotential, rock_salt: Atoms, cluster: Atoms
) -> Path:
    """A folder with a model file, a periodic and a non-periodic structure."""
    from openmm_nequiplr import save_model

    folder = tmp_path_factory.mktemp("inputs")
    save_model(ionic_model, folder / "salt.safetensors")
    rock_salt.write(folder / "salt.extxyz")
    cluster.write(folder / "cluster.extxyz")
    return folder


@pytest.fixture(scope="session")
def run_options(inputs: Path) -> Any:
    """Factory of options of a short run of the cluster, with some of them changed."""
    from openmm_nequiplr.simulation.md import MDOptions

    given: dict[str, Any] = {
        "model": inputs / "salt.safetensors",
        "structure": inputs / "cluster.extxyz",
        "ensemble": "nve",
        "report_interval": 2,
        "checkpoint_interval": 4,
        "seed": 1,
        "quiet": True,
        "platform": "Reference",
    }
    return lambda output, **changes: MDOptions(**{**given, "output": output, **changes})


@pytest.fixture
def mixture(molecule: Atoms) -> Any:
    """Factory of mixtures of ML atoms and others."""
    return functools.partial(make_mixture, molecule)


@pytest.fixture
def salt_and_water() -> Any:
    """Topology and System of two atoms of a model beside water of four sites."""
    return make_salt_and_water()
