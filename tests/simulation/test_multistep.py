"""Multiple time steps: two force groups whose sum is the model, stepped as RESPA prescribes."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest

from openmm_nequiplr import create_system, load_system, save_model, save_system
from openmm_nequiplr.errors import InputError, ModelFileError
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import add_inner_potential, from_atoms, get_computation
from openmm_nequiplr.simulation.md import continued_options, run_md
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

REFERENCE = openmm.Platform.getPlatform("Reference")
BOTH, SLOW, FAST = {0, 1}, {0}, {1}


@pytest.fixture(scope="module")
def inner(make_model):
    return make_model(equilibration=False, num_layers=0, l_max=0, r_max=3.2)


def context_of(system, start, integrator=None):
    integrator = integrator or openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, REFERENCE)
    context.setPositions(start.positions)
    return context


def both(context, groups):
    state = context.getState(energy=True, forces=True, groups=groups)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


@pytest.mark.parametrize("name", ["tiny_salt", "cluster"])
@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_groups_are_the_model_together(tiny_model, inner, request, tmp_path, name):
    start = from_atoms(request.getfixturevalue(name))
    plain = create_system(start.topology, tiny_model, total_charge=0)
    alone = create_system(start.topology, inner, total_charge=0)
    system = create_system(start.topology, tiny_model, total_charge=0, inner=inner)
    save_system(system, tmp_path / "system.xml")
    energy, forces = both(context_of(plain, start), BOTH)
    cheap = both(context_of(alone, start), BOTH)
    assert np.abs(forces - cheap[1]).max() > 1.0
    for each in (system, load_system(tmp_path / "system.xml")):
        assert get_computation(each).has_response  # the whole model, not the inner one
        context = context_of(each, start)
        whole, slow, fast = (both(context, groups) for groups in (BOTH, SLOW, FAST))
        for found in (whole[0], slow[0] + fast[0]):
            assert found == pytest.approx(energy, abs=1e-10)
        for found in (whole[1], slow[1] + fast[1]):
            np.testing.assert_allclose(found, forces, atol=1e-10)
        np.testing.assert_allclose(fast[1], cheap[1], atol=1e-10)


def test_forces_of_openmm_are_inner_ones(tiny_model, cluster):
    start = from_atoms(cluster)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    bonds.addBond(0, 1, 0.2, 5000.0)
    angles.addAngle(0, 1, 2, 1.0, 50.0)
    system = create_system(start.topology, tiny_model, total_charge=0, inner=[bonds, angles])
    context = context_of(system, start)
    expected, _ = both(
        context_of(create_system(start.topology, tiny_model, total_charge=0), start), BOTH
    )
    whole, slow, fast = (both(context, groups)[0] for groups in (BOTH, SLOW, FAST))
    assert fast > 1.0
    assert whole == pytest.approx(expected, abs=1e-10)
    assert slow == pytest.approx(expected - fast, abs=1e-10)


def forces_of(model, atoms):
    """Function of positions (nm) to forces, kJ/mol/nm, by the evaluator."""
    evaluator = Evaluator(copy.deepcopy(model))

    def forces(positions):
        graph = model.build_graph(atoms.numbers, 10.0 * positions)
        return evaluator(graph).forces * EV_TO_KJ_PER_MOL * 10.0

    return forces


def test_steps_are_those_of_respa(tiny_model, inner, cluster):
    """Against the textbook: half a slow kick, velocity Verlet with the fast forces, half a kick."""
    start, step, count = from_atoms(cluster), 0.004, 4
    system = create_system(start.topology, tiny_model, total_charge=0, inner=inner)
    context = context_of(system, start, openmm.MTSIntegrator(step, [(0, 1), (1, count)]))
    context.getIntegrator().step(3)
    whole, fast = forces_of(tiny_model, cluster), forces_of(inner, cluster)
    masses = np.array([system.getParticleMass(k)._value for k in range(len(cluster))])[:, None]
    x, v, short = start.positions.copy(), np.zeros((len(cluster), 3)), step / count
    for _ in range(3):
        v += 0.5 * step * (whole(x) - fast(x)) / masses
        for _ in range(count):
            v += 0.5 * short * fast(x) / masses
            x += short * v
            v += 0.5 * short * fast(x) / masses
        v += 0.5 * step * (whole(x) - fast(x)) / masses
    found = context.getState(positions=True).getPositions(asNumpy=True)._value
    moved = found - start.positions
    assert np.abs(moved).max() > 1e-3
    drift = (masses * (x - start.positions)).sum(axis=0) / masses.sum()  # CMMotionRemover
    np.testing.assert_allclose(moved, x - start.positions - drift, atol=1e-8)
    assert get_computation(system).evaluations == 4  # one a step, and the first


def test_barostat_and_minimiser_see_the_model(tiny_model, inner, tiny_salt):
    start, found = from_atoms(tiny_salt), []
    for given in (None, inner):
        system = create_system(start.topology, tiny_model, total_charge=0, inner=given)
        barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
        barostat.setRandomNumberSeed(3)
        system.addForce(barostat)
        context = context_of(system, start)
        openmm.LocalEnergyMinimizer.minimize(context, maxIterations=3)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        context.getIntegrator().step(4)
        found.append((energy, context.getState().getPeriodicBoxVolume()._value))
    assert found[1] == pytest.approx(found[0], rel=1e-9)


def test_a_run_continues(inner, make_model, run_options, tmp_path, capsys):
    save_model(inner, tmp_path / "inner.safetensors")
    options = {
        "ensemble": "nvt",
        "inner": tmp_path / "inner.safetensors",
        "inner_steps": 3,
        "timestep": 2.0,
    }
    run_md(run_options(tmp_path / "whole", steps=8, **options))
    run_md(run_options(tmp_path / "parts", steps=4, **options))
    run_md(run_options(tmp_path / "parts", steps=4, restart=True, **options))
    whole, parts = ((tmp_path / n / "final.extxyz").read_text() for n in ("whole", "parts"))
    assert whole == parts
    save_model(make_model(equilibration=False, num_layers=0, r_max=3.0), options["inner"])
    again = {"steps": 2, "restart": True, "temperature": 600.0, "quiet": False, **options}
    run_md(run_options(tmp_path / "parts", **again))
    told = capsys.readouterr().out
    assert "temperature is 600.0 from here on" in told
    assert "inner_sha256 is " in told
    alone = continued_options(model="any", output=tmp_path / "parts", restart=True, inner=None)
    assert alone.inner_steps is None
    options["inner"].unlink()
    with pytest.raises(ModelFileError, match="^inner: expected a model file"):
        run_md(run_options(tmp_path / "parts", **again))
    with pytest.raises(InputError, match="inner_steps: expected nothing without inner, got 3"):
        run_options(tmp_path / "other", inner_steps=3)


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_what_is_refused(tiny_model, inner, tiny_salt):
    topology = from_atoms(tiny_salt).topology
    with pytest.raises(InputError, match="without charges"):
        create_system(topology, tiny_model, total_charge=0, inner=tiny_model)
    system = create_system(topology, tiny_model, total_charge=0)
    for groups in ((1, 1), (0, 99), (99, 0), 1, (0, "a")):
        with pytest.raises(InputError, match="groups: expected two different force groups"):
            add_inner_potential(system, topology, inner, groups=groups)
    for given, got in (([], "no forces"), (5, "int"), ([inner], "NequIPLRPotential")):
        with pytest.raises(InputError, match=f"inner: expected .*, got '{got}'"):
            add_inner_potential(system, topology, given)
    with pytest.raises(ModelFileError, match="^inner: expected a model file"):
        add_inner_potential(system, topology, "missing.safetensors")
    with pytest.raises(InputError, match="solver"):
        add_inner_potential(system, topology, inner, solver="dense")
    assert system.getNumForces() == 2
