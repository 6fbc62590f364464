"""Slabs in OpenMM: what is refused, fields along the normal, stored Systems, whole runs."""

from __future__ import annotations

import warnings

import numpy as np
import openmm
import pytest
from ase.io import read

from openmm_nequiplr import NequIPLRCalculator, create_system, save_model
from openmm_nequiplr.analysis import recompute
from openmm_nequiplr.cli import main
from openmm_nequiplr.data import read_extxyz
from openmm_nequiplr.errors import BoxError, InputError
from openmm_nequiplr.simulation import (
    create_force,
    from_atoms,
    get_computation,
    load_charges,
    load_system,
    save_system,
)

from .twins import EXACT, context_of, energy_and_forces, energy_of

pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def reference(model, atoms, field=0.0):
    """Energy (eV) and forces (eV/Å) by the calculator, with a field in V/nm along z."""
    atoms = atoms.copy()
    atoms.info.update(total_charge=0.0, electric_field=[0.0, 0.0, 0.1 * field])
    atoms.calc = NequIPLRCalculator(model)
    return atoms.get_potential_energy(), atoms.get_forces()


@pytest.mark.parametrize("long_range", ["openmm", "graph"])
def test_a_field_that_is_switched(tiny_model, tiny_slab, long_range):
    start = from_atoms(tiny_slab)
    options = {"slab": True, "electric_field": (0, 0, 0), "long_range": long_range} | EXACT
    system = create_system(start.topology, tiny_model, total_charge=0, **options)
    context = context_of(system, start.positions)
    for field in (0.0, 2.0, -1.0):
        context.setParameter("electric_field_z", field)
        energy, forces = reference(tiny_model, tiny_slab, field)
        assert energy_of(context) == pytest.approx(energy, abs=1e-5)
        found = energy_and_forces(context)[1] / 964.853321
        np.testing.assert_allclose(found, forces, rtol=0.0, atol=1e-5)
    context.setParameter("electric_field_x", 1.0)
    with pytest.raises(openmm.OpenMMException, match="in its plane charge flows"):
        context.getState(energy=True)


def test_a_stored_system_is_still_a_slab(tiny_model, tiny_slab, tmp_path):
    start = from_atoms(tiny_slab)
    system = create_system(start.topology, tiny_model, total_charge=0, slab=True)
    save_system(system, tmp_path / "slab.xml")
    energy = energy_of(context_of(system, start.positions))
    loaded = load_system(tmp_path / "slab.xml")
    assert get_computation(loaded).settings.pbc == (True, True, False)
    assert energy_of(context_of(loaded, start.positions)) == pytest.approx(energy, abs=1e-9)
    bulk = create_system(start.topology, tiny_model, total_charge=0)
    assert abs(energy_of(context_of(bulk, start.positions)) - energy) > 1e-3


def test_barostats_that_scale_the_vacuum_are_told_once(tiny_model, tiny_slab):
    start = from_atoms(tiny_slab)
    plane = openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300.0, True, True, False, 1)
    for barostat, expected in ((openmm.MonteCarloBarostat(1.0, 300.0, 1), 1), (plane, 0)):
        system = create_system(start.topology, tiny_model, total_charge=0, slab=True)
        system.addForce(barostat)
        context = context_of(system, start.positions)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            context.getIntegrator().step(3)
        heights = [each for each in said if "slab: the height of its cell" in str(each.message)]
        assert len(heights) == expected


def test_what_is_no_slab_is_refused(make_model, tiny_model, tiny_slab, tiny_salt, cluster):
    topology = from_atoms(tiny_slab).topology
    given = {"total_charge": 0, "slab": True}
    with pytest.raises(InputError, match="slab: expected True or False, got 'z'"):
        create_system(topology, tiny_model, total_charge=0, slab="z")
    with pytest.raises(InputError, match="slab: expected False for a topology without box"):
        create_force(from_atoms(cluster).topology, tiny_model, **given)
    with pytest.raises(InputError, match="model of isolated molecules"):
        create_system(topology, make_model(isolated=True), **given)
    with pytest.raises(InputError, match="published code"):
        create_system(topology, make_model(legacy_periodic=True), **given)
    with pytest.raises(BoxError, match="perpendicular"):
        create_system(from_atoms(tiny_salt).topology, tiny_model, **given)
    with pytest.raises(InputError, match="along the normal of the slab"):
        create_system(topology, tiny_model, **given, electric_field=(1, 0, 0))


def test_a_mixed_system_is_refused(tiny_model, mixture):
    potential = pytest.importorskip("openmmml").MLPotential("nequiplr", modelPath=tiny_model)
    mixed = mixture()
    arguments = mixed.topology(), mixed.system(), mixed.ml
    with pytest.raises(InputError, match="slab: expected False in a mixed system"):
        potential.createMixedSystem(*arguments, totalCharge=0, slab=True)


def test_a_run_goes_by_the_pbc_of_its_structure(tiny_model, tiny_slab, tmp_path, capsys):
    """Also when it is continued and analysed; what it leaves behind is a slab again."""
    save_model(tiny_model, tmp_path / "model.safetensors")
    tiny_slab.write(tmp_path / "slab.extxyz")
    model, output = str(tmp_path / "model.safetensors"), str(tmp_path / "run")
    common = ["--output", output, "--quiet", "--platform", "Reference"]
    first = ["md", model, str(tmp_path / "slab.extxyz"), "--ensemble", "nve", "--seed", "1"]
    first += ["--steps", "4", "--report-interval", "2", "--total-charge", "0", *common]
    assert main([*first[:4], "npt", *first[5:]]) != 0
    assert "barostat: expected 'anisotropic' with axes x, y or xy for a slab" in (
        capsys.readouterr().err
    )
    assert main(first) == 0
    assert main(["md", model, "--steps", "2", "--restart", *common]) == 0
    final = read(tmp_path / "run" / "final.extxyz")
    assert final.pbc.tolist() == [True, True, False]
    assert read_extxyz(tmp_path / "run" / "final.extxyz")[0].pbc == (True, True, False)
    recorded = load_charges(tmp_path / "run" / "charges.npy")
    found = recompute(tiny_model, tmp_path / "run")
    np.testing.assert_allclose(found.charges, recorded.charges, rtol=0.0, atol=1e-5)
    # the slab is counted in one piece, though it was given in several
    np.testing.assert_allclose(found.dipoles[:, 2], recorded.dipoles[:, 2], rtol=0.0, atol=1e-4)
    assert np.abs(recorded.dipoles[:, 2]).max() < 5.0
    forced = [*first[:2], str(tmp_path / "bulk.extxyz"), *first[3:-3], "--slab"]
    bulk = tiny_slab.copy()
    bulk.pbc = True
    bulk.write(tmp_path / "bulk.extxyz")
    forced[forced.index(output)] = str(tmp_path / "forced")
    assert main(forced) == 0
    assert " of a slab, " in capsys.readouterr().out
    again = load_charges(tmp_path / "forced" / "charges.npy").charges
    np.testing.assert_allclose(again[:2], recorded.charges[:2], rtol=0.0, atol=1e-5)
