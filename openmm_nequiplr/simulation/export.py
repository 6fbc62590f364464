"""Export of models to TorchScript files that OpenMM runs without this package."""

from __future__ import annotations

import dataclasses
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from openmm import app

from ..checks import check_names
from ..conditions import ChargeConditions
from ..describe import describe_atoms, describe_charges, describe_conditions
from ..model import NequIPLRPotential, load_model
from ..model.solving import SolverOptions
from ..total_charge import assume_neutral
from ..units import ANGSTROM_PER_NM
from ..writing import replace_file
from .charge_groups import structure_groups, topology_electrodes
from .serialization import load_embedded
from .settings import ForceOptions, computation_settings
from .structure_files import read_structure
from .topology import element_symbols
from .torchforce import script_settings

_NOT_HERE = {"outside_charges": "a graph does not know charges outside (a PythonForce does)"}


def export_torch_force(
    model: NequIPLRPotential | str | Path,
    topology: app.Topology,
    path: str | os.PathLike,
    *,
    total_charge: Any = None,
    **options: Any,
) -> None:
    """Write a model for the atoms of a topology as a TorchScript file for openmm-torch.

    The file is self-contained, including the long-range sums: OpenMM runs it where neither this
    package nor e3nn is installed::

        import torch
        from openmmtorch import TorchForce

        force = TorchForce("model.pt")
        force.setOutputsForces(True)
        force.setUsesPeriodicBoundaryConditions(True)  # if the topology has a box

    The file is valid for these atoms in this order, with any positions and any box. Besides
    ``forward``, which TorchForce calls, the module has a method ``evaluate(positions, cell)`` with
    arguments in Å. It returns energy (eV), forces (eV/Å), charges, adjoint charges (e) and
    electronegativities (eV/e). An older torch than the one that wrote the file may not be able to
    read it.

    Parameters
    ----------
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.
    topology : openmm.app.Topology
        Its elements determine the atom types. It is periodic if it has a box.
    path : path
        Output file, usually with suffix ``.pt``.
    total_charge : float or Quantity, e
        If it is not given, 0 is assumed with a warning.
    **options
        ``precision``, ``solver``, ``charge_tolerance``, ``max_iterations``, ``electric_field``,
        ``charge_groups``, ``group_charges``, ``electrodes``, ``electrode_voltage`` and ``slab`` as
        for :func:`~openmm_nequiplr.create_system`, and ``device``, the device of the module. The
        default is the CPU; openmm-torch moves the module to the GPU on platform CUDA.

    Raises
    ------
    BackendError
        If the model was converted from the published code and keeps its Coulomb sums, or the device
        does not exist.
    UnknownElementError, BoxError, InputError
        As in :func:`~openmm_nequiplr.create_system`.
    """
    known = [each.name for each in dataclasses.fields(ForceOptions) if each.name != "long_range"]
    check_names(options, known, _NOT_HERE)
    chosen = ForceOptions(long_range="graph", **options)
    settings = computation_settings(topology, model, chosen, total_charge=total_charge)
    own = load_embedded(settings.model)
    notes = {
        "symbols": " ".join(settings.symbols),
        "periodic": str(settings.periodic),
        "total_charge": str(settings.total_charge),
        "model": json.dumps(own.metadata),
    }
    graph = script_settings(settings, own, chosen.device or "cpu", notes=notes)
    buffer = BytesIO()
    torch.jit.save(graph, buffer)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getbuffer())


def export_structure(
    model: str | Path,
    structure: str | Path,
    output: str | os.PathLike,
    *,
    frame: int | None = None,
    total_charge: float | None = None,
    solver: str = "auto",
    **options: Any,
) -> str:
    """Write a model for the atoms of a structure file.

    Parameters
    ----------
    model : path or str
    structure, frame
        See :func:`~openmm_nequiplr.simulation.read_structure`.
    output : path
    total_charge : float, optional, e
        By default that of the structure.
    solver, **options
        Options of :func:`export_torch_force`.

    Returns
    -------
    str
        One line that describes the exported model.
    """
    start, loaded = read_structure(structure, frame), load_model(model)
    assumed = total_charge is None and not start.charge_given
    if assumed:
        where = f"{structure} does not tell (--total-charge does)"
        total_charge = assume_neutral(loaded.metadata, where)
    elif total_charge is None:
        total_charge = start.total_charge
    groups, charges = options.pop("charge_groups", None), options.pop("group_charges", None)
    electrodes = topology_electrodes(start.topology, None, options.get("electrodes"))
    held = structure_groups(start, groups, charges, total_charge, electrodes)
    if held is not None:
        options |= {"charge_groups": held.groups, "group_charges": held.charges}
    options["slab"] = options.get("slab", False) or start.slab
    export_torch_force(
        loaded, start.topology, output, total_charge=total_charge, solver=solver, **options
    )
    box = None if start.box is None else start.box * ANGSTROM_PER_NM
    periodic = loaded.config.sees_images(box is not None)
    symbols, slab = element_symbols(start.topology), options["slab"]
    atoms = describe_atoms(symbols, total_charge, box, assumed, slab=slab)
    charges = describe_charges(loaded.config, start.num_atoms, periodic, SolverOptions(solver))
    voltage = options.get("electrode_voltage", 0.0)
    labels, values = held or (None, None)
    conditions = ChargeConditions(None, labels, values, electrodes, voltage)
    return f"{atoms}{describe_conditions(conditions)}, {charges}"
