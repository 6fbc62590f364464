# %% [markdown]
# # Large periodic systems
#
# Solving for the charges of N atoms with a dense matrix costs N³ operations. From 200 periodic
# atoms on, conjugate gradients with particle-mesh products are used instead, and the cost of a step
# grows in proportion to N, apart from a logarithm. This tutorial measures the accuracy of the mesh
# and the time of a step for crystals of MgO with up to 4,096 atoms.
#
# ## The mesh against the dense matrix
#
# The same 512 randomly displaced atoms are evaluated with the dense solver and with the iterative
# solver at several tolerances. `charge_tolerance` is the relative residual at which the solver
# stops; the mesh is chosen accordingly.

# %%
import numpy as np
from ase import Atoms
from ase.build import bulk

from openmm_nequiplr import load_model
from openmm_nequiplr.model import Evaluator


def crystal(cells: int) -> Atoms:
    """A cube of MgO with random displacements of 0.05 Å."""
    atoms = bulk("MgO", "rocksalt", a=4.25, cubic=True).repeat(cells)
    atoms.rattle(0.05, seed=1)
    return atoms


model = load_model("au2-mgo")
atoms = crystal(4)
graph = model.build_graph(
    atoms.numbers, atoms.positions, cell=np.array(atoms.cell), pbc=True, total_charge=0
)
exact = Evaluator(model, solver="dense")(graph)
tolerances = 10.0 ** -np.arange(2, 7)
found = []
for tolerance in tolerances:
    result = Evaluator(model, solver="iterative", charge_tolerance=tolerance)(graph)
    errors = (
        np.abs(result.charges - exact.charges).max(),
        np.sqrt(np.mean((result.forces - exact.forces) ** 2)),
        abs(result.energy - exact.energy) / len(atoms),
    )
    found.append(errors)
    print(f"tolerance {tolerance:.0e}: charges {errors[0]:.1e} e,", end=" ")
    print(f"forces {errors[1]:.1e} eV/Å, energy {errors[2]:.1e} eV/atom")
found = np.array(found)

# %% [markdown]
# ## Time of a step
#
# The Systems are ordinary OpenMM Systems at 300 K. The first steps are discarded, because they
# compile loops and the solver has no previous solutions yet. Of the other steps, the fastest is
# shown. `solves` contains the numbers of iterations for the charges and for the adjoint charges,
# which the forces need. Each solve starts from the results of previous steps (warm start) and needs
# only a few iterations.

# %%
import time

from openmm import LangevinMiddleIntegrator, app, unit

from openmm_nequiplr import create_system
from openmm_nequiplr.simulation import from_atoms, get_computation

sizes, milliseconds = [], []
for cells in (2, 3, 4, 5, 6, 8):
    start = from_atoms(crystal(cells))
    system = create_system(start.topology, "au2-mgo", total_charge=0)
    integrator = LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
    )
    simulation = app.Simulation(start.topology, system, integrator)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(5)
    steps = []
    for _ in range(5):
        begin = time.perf_counter()
        simulation.step(1)
        steps.append(1000 * (time.perf_counter() - begin))
    sizes.append(start.num_atoms)
    milliseconds.append(min(steps))
    charges, adjoint, _ = get_computation(system).solves[-1]
    solver = "iterative" if Evaluator(model).iterative(start.num_atoms, True) else "dense"
    print(f"{sizes[-1]:5d} atoms: {milliseconds[-1]:6.1f} ms a step, {solver}", end="")
    print(f", {charges} + {adjoint} iterations" if solver == "iterative" else "")

# %%
from openmm_nequiplr.analysis.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    legend_above,
    log_scale,
    new_figure,
    save_figure,
)

figure, (accuracy, speed) = new_figure(2, 4.6, 3.8)
curves = (
    ("charges (e)", BLUE, "o-"),
    ("forces (eV/Å)", ORANGE, "s-"),
    ("energy (eV/atom)", GREEN, "^-"),
)
for (label, colour, marker), errors in zip(curves, found.T, strict=True):
    accuracy.loglog(tolerances, errors, marker, ms=5, color=colour, label=label)
accuracy.axvline(1e-4, color=GREY, ls=":", lw=1)
accuracy.text(1.1e-4, accuracy.get_ylim()[0], "default", fontsize=8, va="bottom")
accuracy.set(xlabel="charge_tolerance", ylabel="difference from the dense solver")
speed.plot(sizes, milliseconds, "o-", ms=5, color=BLUE, label="measured")
line = np.array([sizes[1], sizes[-1]])
proportional = milliseconds[-1] * line / sizes[-1]
speed.plot(line, proportional, "--", color=GREY, lw=1, label="in proportion to N")
speed.set(xlabel="number N of atoms", ylabel="time of a step (ms)")
log_scale(speed, sizes, "x")
log_scale(speed, milliseconds)
legend_above(accuracy)
legend_above(speed)
save_figure(figure, "large.png")

# %% [markdown]
# ![Differences between the mesh and the dense matrix, and time of a step against size](large.png)
#
# The errors of charges and forces are proportional to the tolerance, and the error of the energy is
# of second order in it. The errors at the default of 1e-4 are far below those of any network. The
# [benchmarks](../benchmarks/index.md) include systems of up to 32,768 atoms, and [Large
# systems](../guides/large.md) lists the options.
#
# `au2-mgo` was trained on slabs under gold. It is used here only for measurements, not to predict
# properties of bulk MgO.
