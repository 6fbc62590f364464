"""Models of structures in free space pay no heed to cells, wherever they come from."""

from __future__ import annotations

import ase
import numpy as np
import openmm
import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from openmm_nequiplr import NequIPLRCalculator, create_system
from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import GraphDataset
from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import current_evaluation, from_atoms


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
        item = GraphDataset([structure], model)[0]
        assert item.graph.periodic == (periodic,)
        assert (item.labels.dipole is None) is periodic
        assert (item.labels.stress is None) is not periodic


def test_the_image_of_an_atom_does_not_matter(models, ions):
    """A molecule that the boundary cuts, for the calculator and in a System."""
    ions.calc = NequIPLRCalculator(models[0])
    ions.info["total_charge"] = 0
    expected, forces = ions.get_potential_energy(), ions.get_forces()
    cut = ions.copy()
    cut.pbc = True
    cut.positions = np.mod(cut.positions + 8.0, 9.0)
    assert np.ptp(cut.positions, axis=0).max() > 6.0
    cut.calc = NequIPLRCalculator(models[1])
    assert cut.get_potential_energy() == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(cut.get_forces(), forces, atol=1e-9)
    structure = from_atoms(cut)
    system = create_system(structure.topology, models[1], total_charge=0)
    assert not system.usesPeriodicBoundaryConditions()
    platform = openmm.Platform.getPlatformByName("Reference")
    for periodic in (False, True):
        if periodic:  # as in a mixed system: the State tells a box
            system.getForce(0).setUsesPeriodicBoundaryConditions(True)
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(structure.positions)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        assert energy == pytest.approx(expected * 96.48533212331, abs=1e-6)
        dipole = current_evaluation(context).dipole
        np.testing.assert_allclose(dipole, ions.get_dipole_moment(), atol=1e-8)


def test_torchforce_graphs_take_no_cut_molecules(models, ions, monkeypatch):
    from openmm_nequiplr.simulation import system as module

    monkeypatch.setattr(module, "resolve_backend", lambda backend, device: backend)
    ions.pbc = True
    with pytest.raises(BackendError, match="backend: expected 'python' for a model of isolated"):
        create_system(from_atoms(ions).topology, models[1], total_charge=0, backend="torch")
