"""Interface to openmm-ml: the potential behind ``MLPotential("nequiplr", modelPath=...)``.

Only this module and :mod:`.embedding` import openmm-ml, and they are imported only when a potential
is created. Names in camel case are prescribed by openmm-ml.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openmm
from openmm import app
from openmmml.mlpotential import MLPotentialImpl

from ..errors import InputError, describe, unknown
from ..model import NequIPLRPotential
from .charge_groups import join_links
from .embedding import EMBEDDING_OPTIONS, EMBEDDINGS, create_mixed_system, with_box
from .settings import ForceOptions, as_model
from .system import create_force

#: Names of the total charge in openmm-ml, in its potentials and in :func:`create_system`.
CHARGE_NAMES = ("totalCharge", "charge", "total_charge")
#: Options of :func:`create_force` that ``createSystem`` and ``createMixedSystem`` pass on.
FORCE_OPTIONS = (
    *(each.name for each in dataclasses.fields(ForceOptions)),
    "embed_model",
    "outside_width",
    "parameters",
    "replicas",
)


class NequIPLRPotentialImpl(MLPotentialImpl):
    """A NequIP-LR model as a potential of openmm-ml.

    >>> potential = MLPotential("nequiplr", modelPath="model.safetensors")
    >>> system = potential.createSystem(topology, totalCharge=1)

    In addition to their own arguments, ``createSystem`` and ``createMixedSystem`` accept
    ``totalCharge`` (or ``charge``), ``embed_model`` and ``parameters`` of :func:`.create_system`,
    and the fields of :class:`.settings.ForceOptions`. ``totalCharge`` is the charge (e) of the
    atoms that the model acts on. If it is missing, and neither a force field nor ``group_charges``
    determine it, 0 is assumed with a warning. ``createMixedSystem`` with
    ``embedding="electrostatic"`` also accepts ``outside_width`` (Å or a Quantity), the Gaussian
    width of the force-field charges.

    Parameters
    ----------
    name : str
        Name of the potential in openmm-ml.
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.

    Raises
    ------
    ModelFileError
        If the model cannot be read.
    """

    def __init__(self, name: str, model: NequIPLRPotential | str | Path) -> None:
        self.name = name
        self.source = model
        self.model = as_model(model)
        #: Whether the model includes the Coulomb energy of periodic images.
        self.sums_images = not (self.model.config.legacy_periodic or self.model.config.isolated)
        #: External charges from a force field, e, by particle index.
        self.outside_charges: dict[int, float] = {}

    def addForces(
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,
    ) -> None:
        """Add the force of the model to a System.

        Parameters
        ----------
        topology : openmm.app.Topology
        system : openmm.System
            Its box is used if the topology has none.
        atoms : iterable of int, optional
            Indices of the atoms that the model acts on; by default all.
        forceGroup : int
        **args
            Options, see the class.

        Raises
        ------
        InputError, UnknownElementError, BoxError, BackendError
            As for :func:`openmm_nequiplr.create_system`; also for unknown options.
        """
        options = force_options(args)
        chosen = None if atoms is None else list(atoms)
        topology = with_box(topology, system)
        if chosen is not None and options.get("charge_groups") is not None:
            topology, groups = join_links(topology, system, chosen, options["charge_groups"])
            options["charge_groups"] = groups
        outside = self.outside_charges
        force = create_force(
            topology, self.source, atoms=chosen, outside_charges=outside, **options
        )
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def createMixedSystem(
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: list[int],
        forceGroup: int,
        interpolate: bool,
        embedding: str,
        returnInfo: bool = False,
        **args: Any,
    ) -> openmm.System | dict[str, Any]:
        """Create a mixed System; see :func:`.embedding.create_mixed_system`."""
        if embedding not in self.getSupportedEmbeddings():
            raise InputError(describe("embedding", embedding, " or ".join(map(repr, EMBEDDINGS))))
        if force_options(args).get("slab"):  # fail now
            expected = "False in a mixed system, as OpenMM sums the force field over bulk images"
            raise InputError(describe("slab", True, expected))
        return create_mixed_system(
            self, topology, system, atoms, forceGroup, interpolate, returnInfo, args, embedding
        )

    def getSupportedEmbeddings(self) -> list[str]:
        """Names of the supported embeddings; the mechanical one extends that of openmm-ml."""
        return list(EMBEDDINGS)

    def getMLLongRange(self) -> bool:
        """Whether the model, not the force field, describes the images of the ML atoms."""
        return self.sums_images


def force_options(args: dict[str, Any]) -> dict[str, Any]:
    """Convert arguments of openmm-ml's ``create…System`` to those of :func:`create_force`.

    Raises
    ------
    InputError
        If an argument is unknown, or the total charge is given under several names.
    """
    known = (*CHARGE_NAMES[:2], *FORCE_OPTIONS)
    for name in args:
        if name not in (*CHARGE_NAMES, *FORCE_OPTIONS, *EMBEDDING_OPTIONS):
            raise InputError(unknown("option", name, known))
    charges = [name for name in CHARGE_NAMES if name in args]
    if len(charges) > 1:
        raise InputError(describe("totalCharge", " and ".join(charges), "one of these names"))
    options = {name: args[name] for name in FORCE_OPTIONS if name in args}
    if charges:
        options["total_charge"] = args[charges[0]]
    return options
