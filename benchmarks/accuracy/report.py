"""Tables and pictures of the accuracy benchmark, from whatever results there are."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from systems import VARIANTS
from worker import CONFIG, PREDICTIONS, RESULT

from openmm_nequiplr.analysis.figures import GREY, legend_beside, new_figure, save_figure

#: Key of a result, head of its column, digits.
COLUMNS = (
    ("energy_per_atom", "E meV/atom", 3),
    ("energy", "E meV", 1),
    ("forces", "F meV/Å", 2),
    ("charges", "q me", 2),
    ("dipole", "dipole me Å", 1),
    ("training_minutes", "training min", 1),
    ("epochs", "epochs", 0),
    ("milliseconds_per_frame", "ms/frame", 1),
)
_COLOURS = dict(zip(VARIANTS, ("#1f5fa8", "#7fb0dc", "#d9731a", "#4a9a4a"), strict=True))
Group = dict[tuple[str, float], list[dict[str, Any]]]


def read_results(directory: Path) -> Group:
    """Finished runs by variant and cutoff."""
    groups: Group = defaultdict(list)
    for path in sorted(directory.glob(f"*/{RESULT}")):
        result = json.loads(path.read_text(encoding="utf-8"))
        config = yaml.safe_load((path.parent / CONFIG).read_text(encoding="utf-8"))
        flat = {**result, **result["rmse"], "directory": path.parent, "seed": config["seed"]}
        variant = next(name for name in VARIANTS if path.parent.name.startswith(f"{name}_r"))
        groups[variant, float(config["model"]["r_max"])].append(flat)
    order = list(VARIANTS)
    return dict(sorted(groups.items(), key=lambda item: (item[0][1], order.index(item[0][0]))))


def write_report(system: str, directory: Path) -> str:
    """Write ``table.md``, ``table.json`` and pictures; return the table."""
    groups = read_results(directory)
    if not groups:
        return f"{system}: no results yet"
    used = [c for c in COLUMNS if any(c[0] in run for runs in groups.values() for run in runs)]
    table = _table(system, groups, used)
    (directory / "table.md").write_text(table + "\n", encoding="utf-8")
    plain = [
        {"variant": variant, "cutoff": cutoff, "runs": [
            {k: str(v) if isinstance(v, Path) else v for k, v in run.items()} for run in runs]}
        for (variant, cutoff), runs in groups.items()
    ]  # fmt: skip
    (directory / "table.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    _draw_cutoffs(groups, directory / "rmse_cutoff.png")
    _draw_parity(groups, directory / "parity.png")
    _draw_curves(groups, directory / "learning_curves.png")
    return table


def _table(system: str, groups: Group, used: list[tuple[str, str, int]]) -> str:
    heads = ["variant", "cutoff Å", "sees Å", "runs", *(head for _, head, _ in used)]
    lines = [f"### {system}", "", " | ".join(["", *heads, ""]).strip()]
    lines.append("|" + "---|" * len(heads))
    for (variant, cutoff), runs in groups.items():
        cells = [VARIANTS[variant], f"{cutoff:g}", f"{runs[0]['receptive_field']:g}"]
        cells.append(str(len(runs)))
        for key, _, digits in used:
            values = [run[key] for run in runs if key in run]
            cells.append(_mean(values, digits))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Root mean square errors on the test frames; mean ± standard deviation of runs."]
    return "\n".join(lines)


def _mean(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def _draw_cutoffs(groups: Group, path: Path) -> None:
    """Errors against the cutoff, a line for each variant."""
    names = [c for c in COLUMNS[:5] if c[0] != "energy" and _any(groups, c[0])]
    figure, axes = new_figure(len(names), 3.4, 3.2)
    for axis, (key, head, _) in zip(axes, names, strict=True):
        for variant in VARIANTS:
            points = [
                (cutoff, [run[key] for run in runs if key in run])
                for (own, cutoff), runs in groups.items()
                if own == variant
            ]
            points = [(cutoff, values) for cutoff, values in points if values]
            if points:
                x, y = [p[0] for p in points], [np.mean(p[1]) for p in points]
                spread = [np.std(p[1]) for p in points]
                style = {"color": _COLOURS[variant], "capsize": 3, "label": VARIANTS[variant]}
                axis.errorbar(x, y, spread, marker="o", **style)
        axis.set_xlabel("cutoff (Å)")
        axis.set_title(head)
        axis.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    legend_beside(axes[-1], handles=handles, labels=labels)
    save_figure(figure, path)


def _draw_parity(groups: Group, path: Path) -> None:
    """Forces of the first run of every variant at its largest cutoff."""
    chosen = {variant: runs[0] for (variant, _), runs in groups.items()}
    figure, axes = new_figure(len(chosen), 3.4, 3.4)
    for axis, (variant, result) in zip(axes, chosen.items(), strict=True):
        reference, predicted = np.load(result["directory"] / PREDICTIONS)["forces"]
        ends = [reference.min(), reference.max()]
        axis.plot(ends, ends, color=GREY, lw=1)
        axis.plot(reference, predicted, ".", ms=3, color=_COLOURS[variant], alpha=0.5)
        axis.set_xlabel("reference force (eV/Å)")
        axis.set_title(f"{variant}: {result['forces']:.3g} meV/Å")
    axes[0].set_ylabel("model (eV/Å)")
    save_figure(figure, path)


def _draw_curves(groups: Group, path: Path) -> None:
    """Validation errors of the forces against training time."""
    cutoffs = sorted({cutoff for _, cutoff in groups})
    figure, axes = new_figure(len(cutoffs), 4.2, 3.4, sharey=True)
    for axis, cutoff in zip(axes, cutoffs, strict=True):
        for (variant, own), runs in groups.items():
            for number, result in enumerate(runs if own == cutoff else []):
                with open(result["directory"] / "metrics.csv", encoding="utf-8") as handle:
                    rows = [r for r in csv.DictReader(handle) if r["validation_forces_rmse"]]
                minutes = [float(row["minutes"]) for row in rows]
                errors = [float(row["validation_forces_rmse"]) for row in rows]
                label = VARIANTS[variant] if number == 0 else None
                axis.plot(minutes, errors, color=_COLOURS[variant], lw=1, label=label)
        axis.set_yscale("log")
        axis.set_xlabel("minutes of training")
        axis.set_title(f"cutoff {cutoff:g} Å")
    axes[0].set_ylabel("validation, forces (meV/Å)")
    handles, labels = axes[0].get_legend_handles_labels()
    legend_beside(axes[-1], handles=handles, labels=labels)
    save_figure(figure, path)


def _any(groups: Group, key: str) -> bool:
    return any(key in run for runs in groups.values() for run in runs)
