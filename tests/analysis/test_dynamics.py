"""Diffusion and spectra of a trajectory by the models of this package."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from openmm_nequiplr.analysis import analyze_trajectory, recompute
from openmm_nequiplr.analysis.dynamics import analyze_dynamics, unwrapped
from openmm_nequiplr.analysis.spectra import LIGHT
from openmm_nequiplr.analysis.trajectories import open_trajectory
from openmm_nequiplr.cli import main
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import save_model

INTERVAL, FRAMES, WAVENUMBER = 0.002, 64, 1300.0
pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def vibration(atoms, drift=0.0):
    """One atom oscillates; another drifts, and is wrapped into a cell."""
    frames = []
    for index in range(FRAMES):
        frame = atoms.copy()
        phase = 2 * np.pi * LIGHT * WAVENUMBER * INTERVAL * index
        frame.positions[0] += 0.02 * np.sin(phase) * np.array([1.0, 0.5, 0.0])
        frame.positions[-1] += drift * index
        if frame.pbc.any():
            frame.wrap()
        frame.info.update(total_charge=0.0, time=INTERVAL * index)
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def isolated(make_model):
    molecule = Atoms("NaClO", [[0, 0, 0], [2.3, 0, 0], [0.3, 2.2, 0.4]])
    frames = vibration(molecule)
    return frames, recompute(make_model(), frames, response=True)


def test_born_charges_add_up_to_the_dipole(isolated):
    _, properties = isolated
    expected = properties.dipoles - properties.dipoles[0]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(properties.born_dipoles, expected, atol=2e-4)
    assert properties.polarizabilities.shape == (FRAMES, 3, 3)
    assert properties.last_born.shape == (3, 3, 3)


def test_lines_of_a_vibration(isolated):
    """Infrared and Raman have their line at the frequency of the motion."""
    frames, properties = isolated
    found = analyze_dynamics(properties, open_trajectory(frames), resolution=100.0)
    assert found.interval == pytest.approx(INTERVAL)
    for spectrum in (found.infrared, found.raman):
        line = spectrum.wavenumbers[spectrum.intensity.argmax()]
        assert line == pytest.approx(WAVENUMBER, abs=1.5 * spectrum.wavenumbers[1])
    assert found.conductivity is None
    assert found.dielectric is None


def test_atoms_are_followed_through_a_cell(make_model, crystal):
    crystal = crystal[[0, 1, 3]]
    frames = vibration(crystal, drift=0.1)
    properties = recompute(make_model(), frames)
    source = open_trajectory(frames)
    positions = unwrapped(source)
    np.testing.assert_allclose(positions[-1, -1] - positions[0, -1], 0.1 * (FRAMES - 1), atol=1e-9)
    found = analyze_dynamics(properties, source, temperature=300.0)
    assert found.dielectric.shape == (FRAMES,)
    assert found.conductivity > 0.0
    ends = 3 * (0.1 * np.arange(FRAMES)) ** 2
    element = found.diffusion.elements.index(crystal.get_chemical_symbols()[-1])
    count = crystal.get_chemical_symbols().count(crystal.get_chemical_symbols()[-1])
    assert found.diffusion.squares[element][30] == pytest.approx(ends[30] / count, rel=0.02)
    with pytest.raises(InputError, match="properties"):
        analyze_dynamics(properties, open_trajectory(frames[:40]))


def test_results_go_on(make_model, isolated, tmp_path):
    """A resumed evaluation continues the dipole of the Born charges."""
    frames, whole = isolated
    output = tmp_path / "p.npz"
    recompute(make_model(), frames[:10], response=True, output=output)
    found = recompute(make_model(), frames[:20], response=True, output=output, resume=True)
    np.testing.assert_allclose(found.born_dipoles, whole.born_dipoles[:20], atol=1e-9)
    with pytest.raises(InputError, match="choice of response"):
        recompute(make_model(), frames[:20], output=output, resume=True)


def test_command(make_model, isolated, tmp_path, capsys):
    frames, _ = isolated
    save_model(make_model(), tmp_path / "m.safetensors")
    from ase.io import write

    write(tmp_path / "t.extxyz", frames[:20])
    given = [str(tmp_path / "m.safetensors"), str(tmp_path / "t.extxyz")]
    output = tmp_path / "out"
    more = ["--output", str(output), "--dynamics", "--response", "--interval", str(INTERVAL)]
    assert main(["analyze", *given, *more]) == 0
    assert "diffusion of Cl" in capsys.readouterr().out
    names = {path.name for path in output.iterdir()}
    assert {"diffusion.csv", "spectra.csv", "dynamics.png"} <= names
    table = np.genfromtxt(output / "spectra.csv", delimiter=",", names=True)
    assert len(table.dtype.names) == 4
    for frame in frames:
        frame.info.pop("time", None)
    with pytest.raises(InputError, match="interval"):
        analyze_trajectory(make_model(), frames, output=tmp_path / "no", dynamics=True, quiet=True)
    assert not (tmp_path / "no").exists()
