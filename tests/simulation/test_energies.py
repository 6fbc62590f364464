"""Parts of the energy along a run."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import app

from openmm_nequiplr import EnergyReporter
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation import get_computation
from openmm_nequiplr.simulation.energies import COLUMNS
from openmm_nequiplr.simulation.md import run_md
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .twins import simulation_of

pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def read(path):
    return np.genfromtxt(path, delimiter=",", names=True)


def test_parts_sum_to_the_energy_and_cost_nothing(tiny_model, cluster, tmp_path):
    options = {"electric_field": (0, 0, 3.0), "parameters": ["coulomb_scale"]}
    simulation = simulation_of(cluster, tiny_model, total_charge=0, **options)
    states = app.StateDataReporter(str(tmp_path / "s.csv"), 2, potentialEnergy=True)
    reporter = EnergyReporter(tmp_path / "e.csv", 2)
    simulation.reporters += [states, reporter]
    simulation.step(4)
    simulation.context.setParameter("coulomb_scale", 0.5)
    simulation.step(4)
    reporter.close()
    found = read(tmp_path / "e.csv")
    assert found.dtype.names == COLUMNS
    assert found["step"].tolist() == [2, 4, 6, 8]
    parts = np.array([found[name] for name in COLUMNS[2:-1]])
    np.testing.assert_allclose(parts.sum(axis=0), found["model_eV"], atol=1e-7)
    assert np.abs(parts).min() > 1e-6  # all of them are at work
    potential = read(tmp_path / "s.csv").view(float) / EV_TO_KJ_PER_MOL
    np.testing.assert_allclose(potential, found["model_eV"], atol=1e-7)
    # one evaluation for each step, and one at the start
    assert get_computation(simulation.system).evaluations <= 10


def test_it_goes_on(tiny_model, cluster, tmp_path):
    """Rows of steps that the simulation has not reached go."""
    simulation = simulation_of(cluster, tiny_model, total_charge=0)
    simulation.reporters.append(EnergyReporter(tmp_path / "e.csv", 1))
    simulation.step(4)
    simulation.reporters.pop().close()
    again = simulation_of(cluster, tiny_model, total_charge=0)
    again.currentStep = 2
    again.reporters.append(EnergyReporter(tmp_path / "e.csv", 1, append=True))
    again.step(2)
    again.reporters.pop().close()
    assert read(tmp_path / "e.csv")["step"].tolist() == [1, 2, 3, 4]
    (tmp_path / "e.csv").write_text("a,b\n")
    again.reporters.append(EnergyReporter(tmp_path / "e.csv", 1, append=True))
    with pytest.raises(InputError, match="a table with the columns"):
        again.step(1)


def test_md_writes_them(run_options, tmp_path):
    """Also across a restart, once for each frame."""
    run_md(run_options(tmp_path / "run", steps=4))
    run_md(run_options(tmp_path / "run", steps=4, restart=True))
    found, log = (read(tmp_path / "run" / name) for name in ("energies.csv", "log.csv"))
    assert found["step"].tolist() == log["step"].tolist() == [2, 4, 6, 8]
    np.testing.assert_allclose(found["model_eV"], log["potential_eV"], atol=1e-6)
