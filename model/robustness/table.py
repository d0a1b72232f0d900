"""What is shown of a sweep."""

import base64
from typing import Any

from model.robustness.perturbations import NEARLY_LOSSLESS
from model.robustness.robustness import PICTURE, Outcome, Sweep, read_sweep
from model.run.run import Run

APART = 0.01  # between the probabilities of a video, from which on it is said
COLUMNS = ("scored", "AUC", "drop of AUC", "accuracy", "shift, real", "shift, fake")
EXPLAINED = (
    "drop and shift: against the unchanged videos, over those that are scored in both;\n"
    "shift: of the mean probability of being fake; accuracy: at the run's own threshold.\n"
    f"All copies but those named after another CRF are stored at CRF {NEARLY_LOSSLESS}."
)


def notes(result: Sweep) -> list[str]:
    """What is to be known beside the numbers: lost and undecidable videos, doubtful results."""
    lines = [f"{n} of {result.videos} videos left out: {why}" for why, n in result.lost.items()]
    for name, outcome in result.outcomes.items():
        if outcome.undecidable:
            reasons = ", ".join(f"{n} {reason}" for reason, n in outcome.undecidable.items())
            lines.append(f"{name}: undecidable are {reasons}")
    if result.apart is not None and result.apart > APART:
        lines.append(
            f"the unchanged videos score up to {result.apart:.3f} apart from the evaluation: they "
            "were judged on another device or with other libraries"
        )
    return lines


def cells(outcome: Outcome) -> list[str]:
    """One row of the table under `COLUMNS`."""
    shifts = [outcome.shift_real, outcome.shift_fake]
    return [
        str(outcome.scored),
        str(outcome.auc_roc),
        str(outcome.auc_drop),
        str(outcome.accuracy),
        *("-" if shift is None else f"{shift:+.3f}" for shift in shifts),
    ]


def sweep_table(result: Sweep) -> str:
    """A sweep as text."""
    widths = (8, 22, 24, 22, 13, 13)
    lines = [f"changed copies of the {result.split} split, {result.videos} videos:"]
    for name, row in [("", COLUMNS), *((n, cells(o)) for n, o in result.outcomes.items())]:
        columns = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {name:16}" + "".join(columns))
    return "\n".join([*lines, *notes(result), EXPLAINED])


def for_report(run: Run) -> dict[str, Any] | None:
    """What ``sweep.html`` shows, if there is a sweep of this very run."""
    picture = run.folder / PICTURE
    found = read_sweep(run) if picture.is_file() else None
    if found is None:
        return None
    return {
        "found": found,
        "columns": COLUMNS,
        "rows": {name: cells(outcome) for name, outcome in found.outcomes.items()},
        "notes": notes(found),
        "explained": EXPLAINED,
        "picture": base64.b64encode(picture.read_bytes()).decode(),
    }
