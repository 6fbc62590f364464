"""Replicas: non-interacting copies of one system in one Context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from openmm import unit

from ..checks import is_whole
from ..errors import InputError, describe
from ..model import NequIPLRPotential
from .quantities import plain_charge, without_unit


def check_replicas(replicas: Any, symbols: Sequence[str]) -> int:
    """The number of replicas, checked against the elements of the consecutive copies.

    Parameters
    ----------
    replicas : int
    symbols : sequence of str, length N
        Elements of all copies.

    Raises
    ------
    InputError
        If the atoms are not this number of copies of one system.
    """
    if not is_whole(replicas) or replicas < 1:
        raise InputError(describe("replicas", replicas, "a whole number of at least 1"))
    count, rest = divmod(len(symbols), int(replicas))
    if rest or not count:
        expected = f"a topology of all copies, whose {len(symbols)} atoms can be shared among them"
        raise InputError(describe("replicas", replicas, expected))
    for index, symbol in enumerate(symbols):
        if symbol != symbols[index % count]:
            got = f"{symbol} as atom {index % count} of replica {index // count} (atom {index})"
            raise InputError(describe("replicas", got, f"{symbols[index % count]} as in the first"))
    return int(replicas)


def replica_labels(count: int, replicas: int) -> tuple[int, ...]:
    """Index of the replica of each of ``count`` atoms."""
    return tuple(index * replicas // count for index in range(count))


def replica_charges(value: Any, replicas: int) -> list[Any]:
    """Total charge of each replica, e, from one value for all replicas or one for each.

    Raises
    ------
    InputError
        If these are not charges, or their number is not that of the replicas.
    """
    expected = f"a charge, or one for each of {replicas} replicas (e)"
    values = without_unit("total_charge", value, unit.elementary_charge, expected)
    if values is None or isinstance(values, str | set) or not np.iterable(values):
        return [None if values is None else plain_charge(values)] * replicas
    charges = [plain_charge(each, f"total_charge[{k}]") for k, each in enumerate(values)]
    if len(charges) != replicas:
        raise InputError(describe("total_charge", f"{len(charges)} charges", expected))
    return charges


def refuse_with_replicas(options: Any, model: NequIPLRPotential, boxed: bool, **more: Any) -> None:
    """Reject options that replicas do not support.

    Parameters
    ----------
    options : ForceOptions
    model : NequIPLRPotential
    boxed : bool
        Whether the topology has a box.
    **more
        Other arguments of :func:`.create_force`, which must be ``None``.

    Raises
    ------
    InputError
        If such an option is given; the message states the reason.
    """
    config = model.config
    old = config.legacy_periodic or config.legacy_nonperiodic
    no_part = "None with replicas, which are all of the System and see nothing but themselves"
    one_group = "None with replicas: the charge of each is held (total_charge takes a list)"
    refused = {
        **{name: (value, no_part) for name, value in more.items()},
        "charge_groups": (options.charge_groups, one_group),
        "electrodes": (options.electrodes, one_group),
        "slab": (options.slab or None, "False with replicas: its dipole is that of one structure"),
        "long_range": (
            options.long_range if options.long_range == "openmm" else None,
            "'graph' with replicas: OpenMM's sum over all atoms would couple the copies",
        ),
        "backend": (
            options.backend if options.backend not in ("auto", "python") else None,
            "'python' with replicas, which TorchScript graphs do not know",
        ),
        "solver": (
            options.solver if options.solver == "iterative" else None,
            "'dense' with replicas, whose matrices are small",
        ),
        "model": (
            "one of the published code" if old else None,
            "one with the corrected Coulomb sums for replicas",
        ),
        "topology": (
            "a box" if config.isolated and boxed else None,
            "none with replicas of isolated molecules, which are not made whole",
        ),
    }
    for name, (got, expected) in refused.items():
        if got is not None:
            raise InputError(describe(name, got, expected))
