"""Models of structures in free space pay no heed to cells, wherever they come from."""

from __future__ import annotations

import ase
import numpy as np
import openmm
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from openmm import app, unit

from openmm_nequiplr import NequIPLRCalculator, create_system
from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import GraphDataset


@pytest.fixture
def models(make_model):
    """The same model twice: as it is, and for free space."""
    return make_model(), make_model(isolated=True)


@pytest.fixture
def ions(rng) -> ase.Atoms:
    """Two Na and two Cl that images in a box of 9 Å would disturb."""
    sites = 2.6 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], float)
    return ase.Atoms("NaClClNa", sites + rng.normal(scale=0.1, size=sites.shape), cell=[9, 9, 9])


def test_a_calculator_ignores_the_cell(models, ions):
    plain, isolated = models
    ions.calc = NequIPLRCalculator(plain)
    free_energy, free_forces = ions.get_potential_energy(), ions.get_forces()
    boxed = ions.copy()
    boxed.pbc = True
    boxed.calc = NequIPLRCalculator(plain)
    assert abs(boxed.get_potential_energy() - free_energy) > 1e-4
    boxed.calc = NequIPLRCalculator(isolated)
    assert boxed.get_potential_energy() == pytest.approx(free_energy, abs=1e-10)
    np.testing.assert_allclose(boxed.get_forces(), free_forces, atol=1e-10)
    with pytest.raises(PropertyNotImplementedError, match="not periodic"):
        boxed.get_stress()


def test_a_system_is_not_periodic(models, ions):
    topology = app.Topology()
    residue = topology.addResidue("ION", topology.addChain())
    for symbol in ions.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(np.eye(3) * 0.9 * unit.nanometer)
    energies = {}
    for name, model in zip(("plain", "isolated"), models, strict=True):
        system = create_system(topology, model)
        assert system.usesPeriodicBoundaryConditions() is (name == "plain")
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(ions.positions / 10)
        energies[name] = context.getState(energy=True).getPotentialEnergy()._value
    ions.calc = NequIPLRCalculator(models[0])
    expected = ions.get_potential_energy() * 96.48533212331
    assert energies["isolated"] == pytest.approx(expected, abs=1e-6)
    assert energies["plain"] != pytest.approx(expected, abs=1e-2)


def test_labels_of_a_cell_become_those_of_a_molecule(models, ions):
    structure = Structure(
        symbols=tuple(ions.symbols),
        positions=ions.positions,
        cell=ions.cell.array,
        pbc=True,
        energy=1.0,
        dipole=np.ones(3),
        stress=np.eye(3),
    )
    for model, periodic in zip(models, (True, False), strict=True):
        item = GraphDataset([structure], model).items[0]
        assert item.graph.periodic == (periodic,)
        assert (item.labels.dipole is None) is periodic
        assert (item.labels.stress is None) is not periodic
