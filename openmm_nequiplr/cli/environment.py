"""Environment variables of schedulers and of matplotlib."""

from __future__ import annotations

import os

from ..errors import InputError, describe

# Read by Lightning as whole numbers, some of them when it is imported.
_WHOLE = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "JSM_NAMESPACE_RANK"),
)


def settle_environment() -> None:
    """Remove empty variables of schedulers, and let matplotlib draw without a display.

    An unknown backend in ``MPLBACKEND`` would end a run at its first figure.
    """
    for name, value in list(os.environ.items()):
        if (name in _WHOLE or name.startswith("SLURM_")) and not value.strip():
            del os.environ[name]
    os.environ["MPLBACKEND"] = "agg"


def check_ranks() -> None:
    """Check the variables with numbers of processes.

    Raises
    ------
    InputError
        If one is not a whole number.
    """
    for name in _WHOLE:
        value = os.environ.get(name, "0")
        if not value.strip().isdecimal():
            expected = "a whole number, or no such environment variable"
            raise InputError(describe(name, value, expected))
