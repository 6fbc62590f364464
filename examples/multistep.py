"""Multiple time steps: a small network for the stiff forces, the full model every 2 fs.

``nequiplr init --distill`` writes a training file for a network without charges, which learns the
forces of the model. Here it is trained on displaced copies of one structure for some seconds. For
production, train it on frames of a run for some minutes; ``multistep.py MINUTES`` sets the time.
"""

from __future__ import annotations

import sys

from openmm import MTSLangevinIntegrator, Platform, app, unit

from openmm_nequiplr import create_system, read_structure, shipped_structure
from openmm_nequiplr.simulation import get_computation
from openmm_nequiplr.training.new import new_config
from openmm_nequiplr.training.run import train

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 0.2
OUTER, INNER_STEPS = 2.0, 4  # fs


def main() -> None:
    data = shipped_structure("dipeptides")
    options = {"max_time": MINUTES, "timing": 0, "force": True}
    path = new_config([data], "inner.yaml", distill="dipeptides", **options)
    copies = {"copies": 32, "displacement": 0.05, "weight": 1.0}
    inner = train(path, overrides={"harmonic": copies}, progress=False).model_path

    start = read_structure(data)
    system = create_system(start.topology, "dipeptides", total_charge=0, inner=inner)
    bath = 300 * unit.kelvin, 1 / unit.picosecond, OUTER * unit.femtosecond
    integrator = MTSLangevinIntegrator(*bath, [(0, 1), (1, INNER_STEPS)])
    simulation = app.Simulation(start.topology, system, integrator, Platform.getPlatform("CPU"))
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    log = {"step": True, "potentialEnergy": True, "temperature": True}
    simulation.reporters.append(app.StateDataReporter(sys.stdout, 25, **log))
    simulation.step(100)
    count = get_computation(system).evaluations
    print(f"{count} evaluations of the model in {100 * OUTER / 1000:g} ps")


if __name__ == "__main__":
    main()
