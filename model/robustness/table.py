"""A sweep as a table: text for a terminal, values for the report of a run."""

import base64
from typing import Any

from model.robustness.perturbations import VISUALLY_LOSSLESS_CRF
from model.robustness.robustness import PLOT, PerturbationResult, Sweep, read_sweep
from model.run.run import Run

MAX_DIFFERENCE = 0.01  # between two probabilities of an unchanged video; more gets a note
COLUMNS = ("scored", "AUC", "drop of AUC", "accuracy", "shift, real", "shift, fake")
EXPLAINED = (
    "drop and shift: against the unchanged videos, over those that are scored in both;\n"
    "shift: of the mean probability of being fake; accuracy: at the run's own threshold.\n"
    "All copies but those named after another CRF are stored at CRF "
    f"{VISUALLY_LOSSLESS_CRF}."
)


def sweep_table(result: Sweep) -> str:
    """Format a sweep as text."""
    widths = (8, 22, 24, 22, 13, 13)
    lines = [f"changed copies of the {result.split} split, {result.videos} videos:"]
    rows = {"": COLUMNS} | {name: _cells(outcome) for name, outcome in result.outcomes.items()}
    for name, row in rows.items():
        columns = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {name:16}" + "".join(columns))
    return "\n".join([*lines, *_notes(result), EXPLAINED])


def for_report(run: Run) -> dict[str, Any] | None:
    """Return what ``sweep.html`` shows, or None without a finished sweep of this very run."""
    plot = run.folder / PLOT
    sweep = read_sweep(run) if plot.is_file() else None
    if sweep is None:
        return None
    return {
        "found": sweep,
        "columns": COLUMNS,
        "rows": {name: _cells(outcome) for name, outcome in sweep.outcomes.items()},
        "notes": _notes(sweep),
        "explained": EXPLAINED,
        "picture": base64.b64encode(plot.read_bytes()).decode(),
    }


def _cells(outcome: PerturbationResult) -> tuple[str, ...]:
    shifts = [outcome.shift_real, outcome.shift_fake]
    return (
        str(outcome.scored),
        str(outcome.auc_roc),
        str(outcome.auc_drop),
        str(outcome.accuracy),
        *("-" if shift is None else f"{shift:+.3f}" for shift in shifts),
    )


def _notes(result: Sweep) -> list[str]:
    """Return sentences on lost and undecidable videos and doubtful results."""
    lines = [f"{n} of {result.videos} videos left out: {why}" for why, n in result.lost.items()]
    for name, outcome in result.outcomes.items():
        if outcome.undecidable:
            reasons = ", ".join(f"{n} {reason}" for reason, n in outcome.undecidable.items())
            lines.append(f"{name}: undecidable are {reasons}")
    if result.apart is not None and result.apart > MAX_DIFFERENCE:
        lines.append(
            f"the unchanged videos score up to {result.apart:.3f} apart from the evaluation: they "
            "were predicted on another device or with other libraries"
        )
    return lines
