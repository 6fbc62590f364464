"""Mixed systems with virtual sites: water of four sites around ML atoms."""

from __future__ import annotations

import openmm
import pytest
from openmm import app

pytest.importorskip("openmmml", reason="openmm-ml is not installed")

from openmm_nequiplr import create_system
from openmm_nequiplr.errors import InputError

from .mixture import SITE_CHARGES, SITES, energy_of, potential_of


def pair_energy(first, second):
    """Force-field energy of two particles alone, kJ/mol."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for index in (first, second):
        system.addParticle(1.0)
        force.addParticle(SITE_CHARGES[index], 0.25, 0.3)
    system.addForce(force)
    return energy_of(system, SITES[[first, second]])


@pytest.mark.parametrize("interpolate", [False, True])
def test_sites_are_no_obstacle(make_model, salt_and_water, interpolate):
    topology, force_field = salt_and_water
    model = make_model()
    made = potential_of(model).createMixedSystem(
        topology, force_field, [0, 1], totalCharge=0, interpolate=interpolate, returnInfo=True
    )
    assert [atom.element is None for atom in made["topology"].atoms()] == [False] * 5 + [True]
    assert list(topology.atoms())[5].element is None
    alone = app.Topology()
    for atom in list(topology.atoms())[:2]:
        residue = alone.addResidue("ION", alone.addChain())
        alone.addAtom(atom.name, atom.element, residue)
    expected = energy_of(force_field, SITES) - pair_energy(0, 1)
    expected += energy_of(create_system(alone, model, total_charge=0), SITES[:2])
    assert energy_of(made["system"], SITES) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        ([0, 5], "atoms: expected atoms with an element; a virtual site is none, got '5"),
        ([2, 3, 4], "atoms: expected atoms without virtual sites.* the virtual site 5"),
    ],
)
def test_what_the_model_cannot_take(make_model, salt_and_water, atoms, message):
    model = make_model(type_names=("H", "O", "Na", "Cl"))
    with pytest.raises(InputError, match=message):
        potential_of(model).createMixedSystem(*salt_and_water, atoms, totalCharge=0)
