"""Check that the forces of a System are the negative gradient of its energy.

OpenMM's forces are compared with finite differences of OpenMM's energy along random displacements,
the Coulomb sum in OpenMM with the one in torch, and the derivative of the energy with respect to
the volume with the stress of the model. The argument is the name of a shipped model:
python check_forces.py [au2-mgo]
"""

import sys

import numpy as np
import openmm

from openmm_nequiplr import NequIPLRCalculator, create_system, shipped_structure
from openmm_nequiplr.simulation import current_evaluation, read_structure, to_atoms

STEP = 1e-4  # nm
EV = 96.48533212331002  # kJ/mol


def make_context(start, model, long_range):
    system = create_system(
        start.topology,
        model,
        total_charge=start.total_charge,
        long_range=long_range,
        precision="double",
    )
    platform = openmm.Platform.getPlatform("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(start.positions)
    return context


def energy(context, positions):
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy()._value


def force_error(context, directions=8):
    """Relative rms difference of derivatives along random displacements (four points)."""
    rng = np.random.default_rng(1)
    state = context.getState(positions=True, forces=True)
    start = state.getPositions(asNumpy=True)._value
    forces = state.getForces(asNumpy=True)._value
    expected, found = [], []
    for _ in range(directions):
        d = rng.normal(size=start.shape)
        e = [energy(context, start + k * STEP * d) for k in (-2, -1, 1, 2)]
        found.append((e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * STEP))
        expected.append(-(forces * d).sum())
    context.setPositions(start)
    return np.linalg.norm(np.subtract(found, expected)) / np.linalg.norm(expected)


def volume_slopes(context, atoms, strain=1e-4):
    """dE/dln V in eV, from energies of scaled boxes and from the stress of the ASE calculator."""
    start = context.getState(positions=True).getPositions(asNumpy=True)._value
    box = np.array(atoms.cell) / 10.0
    energies = []
    for sign in (-1, 1):
        scale = np.exp(sign * strain / 3)
        context.setPeriodicBoxVectors(*(scale * box))
        energies.append(energy(context, scale * start))
    context.setPeriodicBoxVectors(*box)
    context.setPositions(start)
    slope = (energies[1] - energies[0]) / (2 * strain) / EV
    return slope, atoms.get_stress()[:3].mean() * atoms.get_volume()


def main(model="au2-mgo"):
    start = read_structure(shipped_structure(model))
    contexts = {kind: make_context(start, model, kind) for kind in ("openmm", "graph")}
    parts = {}
    for kind, context in contexts.items():
        print(f"{kind:<7} forces against finite differences: {force_error(context):.1e}")
        parts[kind] = current_evaluation(context).parts
    electrostatic = sum(abs(v) for k, v in parts["graph"].items() if k != "short_range")
    gap = sum(parts["openmm"].values()) - sum(parts["graph"].values())
    print(f"openmm less graph: {gap:.1e} eV, {abs(gap) / electrostatic:.1e} of the electrostatics")
    if start.topology.getPeriodicBoxVectors() is not None:
        atoms = to_atoms(start.topology, start.positions, start.box)
        atoms.calc = NequIPLRCalculator(model, precision="double")
        slope, stress = volume_slopes(contexts["openmm"], atoms)
        print(f"dE/dlnV: {slope:.5f} eV from energies, {stress:.5f} eV from the stress")


if __name__ == "__main__":
    main(*sys.argv[1:])
