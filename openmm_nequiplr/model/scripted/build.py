"""From a model and its atoms to a compiled graph."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...boundaries import SLAB, as_pbc
from ...electrostatics.external import applied_potential
from ...equilibration import JacobiPreconditioner, WoodburyPreconditioner
from ...errors import BackendError, describe
from ...fragments import Groups, check_voltage, held_groups, read_electrodes
from ...nn.e3 import script
from ..building import type_indices
from ..geometry_checks import check_field
from ..potential import NequIPLRPotential
from ..solving import DenseEquilibration, IterativeEquilibration, SolverOptions
from .graph import EvaluationGraph
from .history import ChargeHistory
from .operators import EwaldOperator, FreeOperator, MeshOperator, SlabOperator
from .pairs import PairList

#: How much farther than needed (Å) neighbours are searched.
SKIN = 0.6


def check_scriptable(model: NequIPLRPotential, periodic: bool) -> None:
    """Refuse models without charges, and those with the Coulomb sums of the published code.

    Raises
    ------
    BackendError
        If the model is such a one.
    """
    config = model.config
    if not config.equilibration:
        raise BackendError(
            "backend: expected 'python' for a model without equilibration, got one that needs a "
            "TorchScript graph, which always solves for charges"
        )
    legacy = config.legacy_periodic or config.legacy_ewald_cutoff
    if legacy if periodic else config.legacy_nonperiodic:
        raise BackendError(
            "backend: expected 'python' for a model converted from the published code with its "
            "Coulomb sums as they were (legacy_* in the configuration), got one that needs a "
            "TorchScript graph, which knows the corrected sums alone"
        )


def script_model(
    model: NequIPLRPotential,
    symbols: Sequence[int] | Sequence[str] | np.ndarray,
    pbc: bool | Sequence[bool],
    total_charge: float = 0.0,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    options: SolverOptions | None = None,
    external: torch.nn.Module | None = None,
    skin: float = SKIN,
    notes: dict[str, str] | None = None,
    model_file: bytes = b"",
    atoms: Sequence[int] | None = None,
    electric_field: Sequence[float] | np.ndarray | None = None,
    charge_groups: Groups = None,
    group_charges: Sequence[float] | np.ndarray | None = None,
    electrodes: Any = None,
    electrode_voltage: float = 0.0,
) -> torch.jit.ScriptModule:
    """Compile network, charge equilibration, energy and forces into one TorchScript module.

    Its ``forward(positions, box)`` takes nm and returns kJ/mol and kJ/mol/nm, as OpenMM's
    TorchForce wants it; ``evaluate(positions, cell)`` speaks Å and eV and returns charges too, see
    :class:`.graph.EvaluationGraph`. It keeps its own copy of the model. What it carries from one
    evaluation to the next (pairs, and where charges are solved for iteratively preconditioner and
    guesses) saves time and changes no result beyond the solver's tolerance.

    Parameters
    ----------
    model : NequIPLRPotential
    symbols : sequence of int or str, length N
        Atomic numbers or element symbols.
    pbc : bool or three bool
        Periodic in all directions, in none, or (true, true, false) for a slab.
    total_charge : float, e
    dtype : torch.dtype, optional
        Of the network; that of the model by default.
    device : torch.device or str
    options : SolverOptions, optional
    external : torch.nn.Module, optional
        Sums the smooth part of the point charges in place of the graph, see
        :class:`.graph.EvaluationGraph`.
    skin : float, Å
    notes : dict of str to str, optional
        Kept in the module's attribute ``notes`` as JSON.
    model_file : bytes
        Kept in the module's attribute ``model_file``.
    atoms : sequence of int, length N, optional
        Which of the positions given to ``forward`` are those of the model's atoms; by default all.
    electric_field : sequence of 3 float, optional, V/Å
        Uniform field outside, of isolated structures and along the normal of slabs, which is z.
    charge_groups, group_charges, electrodes, electrode_voltage
        As for :func:`openmm_nequiplr.model.building.build_graph`.

    Raises
    ------
    UnknownElementError
        If the model does not know an element.
    BackendError
        If the model's Coulomb sums are those of the published code.
    InputError
        If an option makes no sense.
    """
    slab, periodic = as_pbc(pbc) == SLAB, bool(as_pbc(pbc))
    check_scriptable(model, periodic)
    if not isinstance(total_charge, int | float):
        raise TypeError(describe("total_charge", total_charge, "a number"))
    options = SolverOptions() if options is None else options
    own = copy.deepcopy(model).to(dtype=dtype, device=device).eval()
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    types = torch.from_numpy(type_indices(own.config, symbols)).to(device)
    config, count = own.config, len(types)
    widths, constant = own.widths[types], config.coulomb_constant
    iterative = options.iterative(config, count, periodic)
    operator: torch.nn.Module
    preconditioner: torch.nn.Module = JacobiPreconditioner()
    if not periodic:
        operator = FreeOperator(widths, constant)
    elif iterative:
        operator = MeshOperator(widths, constant, options.mesh_accuracy)
        preconditioner = WoodburyPreconditioner(constant)
    else:
        operator = EwaldOperator(widths, constant)
    operator = SlabOperator(operator) if slab else operator
    solver: torch.nn.Module = DenseEquilibration(operator)
    if iterative:
        solver = IterativeEquilibration(operator, preconditioner, ChargeHistory(), options)
    pairs = PairList(max(config.r_max, config.charge_cutoff), periodic, skin, slab)
    field = None
    if electric_field is not None:
        field = check_field(config, periodic, electric_field, (0, 0, 1) if slab else None)
    sides = read_electrodes(count, electrodes)
    applied = applied_potential(sides, check_voltage(electrode_voltage, sides))
    held = held_groups(count, charge_groups, group_charges, total_charge, sides)
    graph = EvaluationGraph(
        own, types, periodic, total_charge, pairs, solver, external, field, held, applied
    )
    graph.select(atoms)
    graph.notes = json.dumps(notes or {})
    stored = torch.frombuffer(bytearray(model_file or b"\0"), dtype=torch.uint8).clone()
    graph.register_buffer("model_file", stored)
    return script(graph.to(device).eval())
