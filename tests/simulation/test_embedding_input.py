"""What mechanical embedding refuses, and what it says then."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import unit

pytest.importorskip("openmmml", reason="openmm-ml is not installed")

from openmm_nequiplr.errors import BoxError, InputError

from .mixture import EDGE, potential_of


def mixed_with(make_model, mixture, change=None, periodic=True, **options):
    mixed = mixture(periodic)
    topology, system = mixed.topology(), mixed.system()
    if change is not None:
        change(topology, system)
    atoms = options.pop("atoms", mixed.ml)
    return potential_of(make_model()).createMixedSystem(topology, system, atoms, **options)


def test_a_cutoff_for_charges_is_refused(make_model, mixture):
    def cut(topology, system):
        system.getForce(0).setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)

    with pytest.raises(InputError, match=r"expected PME.*charges with a cutoff"):
        mixed_with(make_model, mixture, cut)


def test_a_box_of_the_topology_alone_is_refused(make_model, mixture):
    def box(topology, system):
        topology.setPeriodicBoxVectors(EDGE * np.eye(3) * unit.nanometer)

    with pytest.raises(BoxError, match=r"setPeriodicBoxVectors\(None\)"):
        mixed_with(make_model, mixture, box, periodic=False)


def test_a_missing_charge_is_asked_for(make_model, mixture):
    mixed = mixture(ml_charge=1.0)
    with pytest.raises(InputError, match=r"totalCharge: .*sum to \+1\.000 e, got none"):
        potential_of(make_model()).createMixedSystem(mixed.topology(), mixed.system(), mixed.ml)


def test_what_cannot_be_taken_out_is_refused(make_model, mixture):
    def second_sum(topology, system):
        system.addForce(copy.deepcopy(system.getForce(0)))

    def offset(topology, system):
        system.getForce(0).addGlobalParameter("x", 0.0)
        system.getForce(0).addParticleParameterOffset("x", 3, 1.0, 0.0, 0.0)

    def exception_offset(topology, system):
        system.getForce(0).addGlobalParameter("x", 0.0)
        system.getForce(0).addExceptionParameterOffset("x", 0, 1.0, 0.0, 0.0)

    def multipoles(topology, system):
        system.addForce(openmm.AmoebaMultipoleForce())

    for change, match in (
        (second_sum, "one NonbondedForce with a lattice sum, got '2 of them'"),
        (offset, "fixed parameters for the chosen atoms"),
        (exception_offset, "fixed parameters for the chosen atoms"),
        (multipoles, "AmoebaMultipoleForce"),
    ):
        with pytest.raises(InputError, match=match):
            mixed_with(make_model, mixture, change)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"atoms": []}, "at least one atom"),
        ({"atoms": [17]}, "indices from 0 to 16"),
        ({"atoms": [3, 3]}, "each index once"),
        ({"atoms": [1, 3]}, "elements that the model knows"),
        ({"totalCarge": 1}, "did you mean 'totalCharge'"),
        ({"mlLongRange": True}, "unknown option 'mlLongRange': did you mean 'long_range'"),
    ],
)
def test_wrong_arguments(make_model, mixture, options, match):
    with pytest.raises(InputError, match=match):
        mixed_with(make_model, mixture, **({"totalCharge": 0} | options))


def test_another_number_of_particles(make_model, mixture):
    with pytest.raises(InputError, match="a System of the topology's 17 atoms"):
        mixed_with(make_model, mixture, lambda topology, system: system.addParticle(1.0))


def test_another_embedding_is_refused(make_model, mixture):
    mixed = mixture()
    impl = potential_of(make_model())._impl
    arguments = (mixed.topology(), mixed.system(), list(mixed.ml), 0, False)
    with pytest.raises(InputError, match="'mechanical' or 'electrostatic', got 'polarizable'"):
        impl.createMixedSystem(*arguments, "polarizable")
