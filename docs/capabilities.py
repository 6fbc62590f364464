"""What works through which interface; ``tests/simulation/test_capabilities.py`` tries it all."""

from __future__ import annotations

from dataclasses import dataclass

#: Ways to a model, and how the table calls them.
DOORS = {
    "python": "PythonForce",
    "torch": "TorchForce",
    "export": "Exported file",
    "openmmml": "openmm-ml",
    "ase": "ASE calculator",
    "evaluator": "Evaluator",
}
_OPENMM = ("python", "torch", "openmmml")


@dataclass(frozen=True)
class Feature:
    """A row of the table.

    Parameters
    ----------
    title : str
    refused : dict of str to str
        Doors through which it does not work, several in a key with spaces between, and the reason.
    absent : str
        Doors to which it does not apply.
    note : str
        What else there is to know.
    """

    title: str
    refused: dict[str, str]
    absent: str = ""
    note: str = ""

    def reasons(self) -> dict[str, str]:
        """Each door that refuses it, and why."""
        return {door: why for doors, why in self.refused.items() for door in doors.split()}

    def cell(self, door: str) -> str:
        """``"yes"``, ``"no"`` or ``"–"``."""
        if door in self.absent.split():
            return "–"
        return "no" if door in self.reasons() else "yes"


_CORRECTED_ONLY = "a TorchScript graph has the corrected Coulomb sums alone"
_NO_VIRIAL = "OpenMM's forces have no virial; Monte Carlo barostats work with energies"

#: Rows of the table, by a short name.
FEATURES: dict[str, Feature] = {
    "molecule": Feature("Isolated molecules", {}),
    "crystal": Feature("Periodic cells, triclinic ones too", {}),
    "charged": Feature("Total charge other than 0", {}, note="in a cell with a uniform background"),
    "slab": Feature(
        "Slabs, periodic in two directions (`slab`, or `pbc` of ASE)",
        {},
        note="with the normal along the third cell vector, charged ones too; "
        "[how](../guides/slabs.md)",
    ),
    "field": Feature(
        "Uniform electric field (`electric_field`)",
        {},
        note="of isolated structures, along the normal of slabs, and on whole groups of atoms with "
        "charges that are held (not in TorchForces and exported files); it can be switched through "
        "parameters of the Context with a PythonForce, and is fixed in TorchForces and exported "
        "files",
    ),
    "charge_groups": Feature(
        "Charges of groups of atoms held (`charge_groups`)",
        {},
        note="bonded molecules or lists of atoms; the ASE calculator finds molecules by distances, "
        "an Evaluator takes lists of atoms",
    ),
    "electrodes": Feature(
        "Electrodes at constant potential (`electrodes`)",
        {},
        note="the voltage can change through a parameter of the Context with a PythonForce, and is "
        "fixed in TorchForces and exported files; [how](../guides/electrodes.md)",
    ),
    "variables": Feature(
        "Charges and dipoles as collective variables",
        {
            "export": "it holds the energy alone; make the variable of a force of `create_force`",
            "ase": "`Evaluator.observe` gives values and gradients",
        },
        note="`charge_variable`, `dipole_variable`; beside a TorchForce by half an evaluation",
    ),
    "parameters": Feature(
        "Total charge and scales of the energy as parameters of a Context (`parameters`)",
        {"torch export": "a TorchScript graph has them fixed"},
        absent="ase evaluator",
        note="the Evaluator takes `coulomb_scale`, and graphs have a total charge",
    ),
    "effective": Feature("Models with effective charges", {}),
    "short_range": Feature(
        "Short-range models (`equilibration: false`)",
        {"torch export": "a TorchScript graph always solves for charges"},
    ),
    "legacy_periodic": Feature(
        "Converted models of the published periodic code", {"torch export": _CORRECTED_ONLY}
    ),
    "legacy_free": Feature(
        "Converted models of the published non-periodic code", {"torch export": _CORRECTED_ONLY}
    ),
    "isolated": Feature(
        "Models of isolated molecules (`isolated: true`) in a box",
        {
            "torch": "the graph does not join molecules that OpenMM has wrapped",
        },
        absent="export",
        note="an exported file has no box then; give it molecules that are whole",
    ),
    "iterative": Feature('Iterative charges (`solver="iterative"`)', {}),
    "precision": Feature("Choice of precision", {}, note="`dtype` of the Evaluator"),
    "pme": Feature(
        'Coulomb energy by OpenMM (`long_range="openmm"`)',
        {
            "export": "the file runs without this package, and so without its operator",
            "ase evaluator": "Coulomb sums are in torch",
        },
    ),
    "stress": Feature(
        "Stress tensor",
        {" ".join(_OPENMM): _NO_VIRIAL, "export": "it serves a force"},
    ),
    "barostat": Feature(
        "Constant pressure",
        {},
        absent="evaluator",
        note="OpenMM's Monte Carlo barostats; with ASE its own, which use the stress",
    ),
    "some_atoms": Feature(
        "Acting on some of the atoms",
        {
            "export": "it is made for all atoms of a structure; export that of the part",
            "ase evaluator": "they evaluate what they are given; give them the part",
        },
        note="`create_force(atoms=…)`; through openmm-ml in mixed systems",
    ),
    "mixed": Feature(
        "Mechanical embedding in a force field",
        {"python torch export ase evaluator": "`createMixedSystem` of openmm-ml does it"},
        note="with either backend",
    ),
    "embedding": Feature(
        "Electrostatic embedding in a force field",
        {
            "torch export": "a TorchScript graph does not know charges outside",
            "ase": "it gives forces on its own atoms alone",
        },
        note="with a PythonForce by `create_force(outside_charges=…)`; not of slabs, as charges "
        "outside are summed over bulk images; "
        "[Electrostatic embedding](../guides/embedding.md)",
    ),
    "replicas": Feature(
        "Replicas: copies of one system that do not interact (`replicas`)",
        {"torch export": "a TorchScript graph knows one system"},
        absent="ase evaluator",
        note="with charges of their own, isolated or in one box; [Replicas](../guides/replicas.md)",
    ),
    "inner": Feature(
        "Multiple time steps with an inner potential (`inner`)",
        {"export": "it holds one force"},
        absent="ase evaluator",
        note="`add_inner_potential` for Systems of openmm-ml and for some of the atoms; it is a "
        "PythonForce, or forces of OpenMM; [Multiple time steps](../guides/multistep.md)",
    ),
    "charges": Feature(
        "Charges of the current positions",
        {},
        note="of a TorchForce by a second evaluation; of an exported file by its `evaluate`",
    ),
    "committee": Feature(
        "Committee disagreement along a run",
        {
            "export": "it holds one model",
            "ase evaluator": "they hold one model; make one for each member",
        },
        note="`CommitteeReporter`",
    ),
    "stored": Feature(
        "Storing the System as XML with the model in it",
        {},
        absent="export ase evaluator",
        note="`save_system`, or OpenMM's `XmlSerializer`; "
        "[reading TorchForces](../guides/torchforce.md#limits)",
    ),
    "alone": Feature(
        "Running without this package",
        {
            "python openmmml": "OpenMM calls Python",
            "torch": "with OpenMM's Coulomb sum it calls an operator of this package",
        },
        absent="ase evaluator",
    ),
}


def _anchor(name: str) -> str:
    return name.replace("_", "-")


def table() -> str:
    """The table and the reasons as Markdown."""
    lines = ["| | " + " | ".join(DOORS.values()) + " |", "|---|" + ":-:|" * len(DOORS)]
    for name, feature in FEATURES.items():
        cells = [{"yes": "✓", "–": "–"}.get(feature.cell(door), "**no**") for door in DOORS]
        lines.append(f"| [{feature.title}](#{_anchor(name)}) | {' | '.join(cells)} |")
    lines += ["", "## Reasons and remarks", ""]
    for name, feature in FEATURES.items():
        said = [
            f"{', '.join(DOORS[door] for door in doors.split())}: {why}."
            if len(doors.split()) < len(DOORS)
            else f"{why[0].upper()}{why[1:]}."
            for doors, why in feature.refused.items()
        ]
        said += [f"{feature.note[0].upper()}{feature.note[1:]}."] if feature.note else []
        text = " ".join(said) or "No restriction."
        lines += [f'<span id="{_anchor(name)}"></span>**{feature.title}.** {text}', ""]
    return "\n".join(lines)
