"""Compilation of a model with given atoms to a TorchScript graph."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...boundaries import SLAB, as_pbc
from ...conditions import ChargeConditions, check_voltage, read_electrodes
from ...electrostatics.external import applied_potential
from ...equilibration import JacobiPreconditioner, WoodburyPreconditioner
from ...errors import BackendError, describe
from ...nn.e3 import script
from ..building import type_indices
from ..geometry_checks import check_field
from ..potential import NequIPLRPotential
from ..solving import DenseEquilibration, IterativeEquilibration, SolverOptions
from .graph import EvaluationGraph
from .history import ChargeHistory
from .operators import EwaldOperator, FreeOperator, MeshOperator, SlabOperator
from .pairs import PairList

#: Search distance of neighbours beyond the cutoff, Å.
SKIN = 0.6


def check_scriptable(model: NequIPLRPotential, periodic: bool) -> None:
    """Check that a model can be compiled.

    Raises
    ------
    BackendError
        If the model has no charges, or has the Coulomb sums of the published code.
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
            "original Coulomb sums (legacy_* in the configuration), got one that needs a "
            "TorchScript graph, which supports only the corrected sums"
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
    **conditions: Any,
) -> torch.jit.ScriptModule:
    """Compile network, charge equilibration, energy and forces to one TorchScript module.

    Its ``forward(positions, box)`` takes nm and returns kJ/mol and kJ/mol/nm, as required by
    OpenMM's TorchForce. ``evaluate(positions, cell)`` uses Å and eV and also returns the charges,
    see :class:`.graph.EvaluationGraph`. The module contains a copy of the model. Data reused
    between evaluations (pairs and, for the iterative solver, preconditioner and guesses) affect the
    results only within the tolerance of the solver.

    Parameters
    ----------
    model : NequIPLRPotential
    symbols : sequence of int or str, length N
        Atomic numbers or element symbols.
    pbc : bool or three bool
        Periodic in all directions, in none, or (true, true, false) for a slab.
    total_charge : float, e
    dtype : torch.dtype, optional
        Precision of the network; by default that of the model.
    device : torch.device or str
    options : SolverOptions, optional
    external : torch.nn.Module, optional
        Module that evaluates the smooth part of the point-charge sum instead of the graph, see
        :class:`.graph.EvaluationGraph`.
    skin : float, Å
    notes : dict of str to str, optional
        Stored as JSON in the attribute ``notes`` of the module.
    model_file : bytes
        Stored in the attribute ``model_file`` of the module.
    atoms : sequence of int, length N, optional
        Indices of the model's atoms among the positions given to ``forward``; by default all.
    **conditions
        As for :func:`openmm_nequiplr.model.building.build_graph`; an ``electric_field`` acts on
        isolated structures or along the normal (z) of slabs.

    Raises
    ------
    UnknownElementError
        If an element is unknown to the model.
    BackendError
        If the model has no charges, or has the Coulomb sums of the published code.
    InputError
        If an option is invalid.
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
    given, field = ChargeConditions(**conditions), None
    if given.electric_field is not None:
        field = check_field(config, periodic, given.electric_field, (0, 0, 1) if slab else None)
    sides = read_electrodes(count, given.electrodes)
    applied = applied_potential(sides, check_voltage(given.electrode_voltage, sides))
    held = given.held(count, total_charge)
    graph = EvaluationGraph(
        own, types, periodic, total_charge, pairs, solver, external, field, held, applied
    )
    graph.select(atoms)
    graph.notes = json.dumps(notes or {})
    stored = torch.frombuffer(bytearray(model_file or b"\0"), dtype=torch.uint8).clone()
    graph.register_buffer("model_file", stored)
    return script(graph.to(device).eval())
