"""GRO files: elements by names, boxes of any orientation, virtual sites."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.files.gro import gro_frames
from openmm_nequiplr.simulation import read_structure
from openmm_nequiplr.simulation.topology import element_symbols

pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def gro(path, atoms, box, decimals=3):
    """Write (residue, name, position in nm) and the numbers of a box."""
    width = decimals + 5
    lines = ["made up", f"{len(atoms):5d}"]
    for k, (residue, name, xyz) in enumerate(atoms):
        place = "".join(f"{value:{width}.{decimals}f}" for value in xyz)
        lines.append(f"{k + 1:5d}{residue:<5}{name:>5}{k + 1:5d}{place}")
    lines.append(" ".join(f"{value:.5f}" for value in box))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_elements_by_names_are_said(tmp_path):
    names = ["MGO/MG", "MGO/O", "AU/AU", "NA/NA", "LIG/CA1", "LIG/Br2", "ALA/CA", "SLB/SI", "PT/PT"]
    atoms = [(*pair.split("/"), (0.3 * k, 0, 0)) for k, pair in enumerate(names)]
    path = gro(tmp_path / "a.gro", atoms, [3, 3, 3])
    with pytest.warns(
        NequIPLRWarning, match="no elements, which are deduced from the atoms' names"
    ):
        found = read_structure(path)
    expected = ["Mg", "O", "Au", "Na", "C", "Br", "C", "Si", "Pt"]
    assert element_symbols(found.topology) == expected
    with pytest.raises(InputError, match=r"element: .* 'X1'"):
        read_structure(gro(tmp_path / "b.gro", [("DUM", "X1", (0, 0, 0))], [1, 1, 1]))


@pytest.mark.parametrize("decimals", [3, 6])
@pytest.mark.parametrize("kind", ["usual", "unaligned", "left-handed"])
def test_triclinic_boxes_of_any_orientation(tmp_path, rng, kind, decimals):
    cell = np.array([[1.5, 0, 0], [0.4, 1.4, 0], [-0.3, 0.5, 1.3]])
    if kind == "unaligned":
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        cell = cell @ (turn * np.linalg.det(turn))
    elif kind == "left-handed":
        cell = cell[[1, 0, 2]]
    positions = rng.uniform(0, 1.2, (4, 3))
    box = [cell[k, k] for k in range(3)]
    box += [cell[i, j] for i, j in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))]
    atoms = [("SOL", "OW", xyz) for xyz in positions]
    path = gro(tmp_path / "a.gro", atoms, box, decimals)
    found = read_structure(path)
    before = Atoms("O4", 10 * positions, cell=10 * cell, pbc=True)
    after = Atoms("O4", 10 * found.positions, cell=10 * found.box, pbc=True)
    precision = 0.03 if decimals == 3 else 1e-3  # the box has five decimals
    np.testing.assert_allclose(
        after.get_all_distances(mic=True), before.get_all_distances(mic=True), atol=precision
    )
    frame = next(gro_frames(path))
    np.testing.assert_allclose(frame[1], 10 * cell, atol=1e-4)


def test_virtual_sites_and_boxes_of_zeros(tmp_path):
    atoms = [("SOL", name, (0.1 * k, 0, 0)) for k, name in enumerate(("OW", "HW1", "HW2", "MW"))]
    path = gro(tmp_path / "a.gro", atoms, [0, 0, 0])
    with pytest.warns(NequIPLRWarning, match=r"1 virtual sites in .* left out \(MW 1\), 3 atoms"):
        found = read_structure(path)
    assert element_symbols(found.topology) == ["O", "H", "H"]
    assert found.box is None


def test_damaged_files(tmp_path):
    path = gro(tmp_path / "a.gro", [("SOL", "OW", (0, 0, 0))] * 2, [1, 1, 1])
    text = path.read_text()
    changes = [("    2\n", "    5\n"), ("1.00000 1.00000", "1.0"), ("    2\n", "many\n")]
    for old, new in [*changes, ("0.000", "  nan")]:
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError):
            read_structure(path)
