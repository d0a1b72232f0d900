"""Text summary of an evaluation, for a terminal."""

import textwrap
from collections.abc import Mapping

from model.evaluation.evaluation import DETECTOR, Evaluation
from model.statistics.breakdown import Part
from model.statistics.metrics import MIN_GROUPS, SIGNIFICANT, Metric

CHANCE = "not distinguishable from chance"
CONFUSION = ("real called real", "real called fake", "fake called real", "fake called fake")
SHOWN = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "auc_roc",
    "auc_p_value",
    "average_precision",
    "eer",
    "brier",
    "ece",
    "decided",
    "accuracy_decided",
)
COMPARED = ("auc_roc", "auc_p_value", "accuracy")  # of the detector and its controls
MAX_NAME = 21  # characters of a manipulation or source
PARTS = {"by_manipulation": "manipulation, against all real videos", "by_source": "source"}


def chance(p_value: Metric) -> str:
    """Return `CHANCE` for an AUC that may be chance, else an empty text."""
    return CHANCE if p_value.value is not None and p_value.value > SIGNIFICANT else ""


def headline(evaluation: Evaluation) -> str:
    """Return a line with the AUC of each split, and whether the detector beats its controls."""
    lines = []
    for split, values in evaluation.metrics.get(DETECTOR, {}).items():
        auc, p_value = values["auc_roc"], values["auc_p_value"]
        n = evaluation.coverage[split]
        caution = f", {chance(p_value)}" if chance(p_value) else ""
        lines.append(
            f"{split}: AUC {auc} on {n['scored']} of {n['videos']} videos (p {p_value}{caution})"
        )
    return "\n".join([*lines, *evaluation.verdicts])


def table(evaluation: Evaluation) -> str:
    """Return the whole evaluation as plain text."""
    lines = []
    for warning in evaluation.warnings:
        lines += [f"WARNING: {warning}", ""]
    for split, n in evaluation.coverage.items():
        lines.append(f"{split}: {n['videos']} videos, {n['scored']} of them scored")
        if n["scored"]:
            lines += [*_metrics(evaluation, split), *_controls(evaluation, split)]
            for kind, title in PARTS.items():
                lines += _parts(getattr(evaluation, kind).get(split, {}), title)
        lines.append("")
    lines += [textwrap.fill(verdict, 98) for verdict in evaluation.verdicts]
    lines += [f"no control {name}: {why}" for name, why in evaluation.absent.items()]
    lines += [
        "in brackets: 95% intervals of a bootstrap over identities, left out where there are fewer",
        f"than {MIN_GROUPS} groups of linked videos, or where all resamples agree; auc_p_value:",
        "how probable an AUC this far from 0.5 is by chance, by permutation of labels that keeps",
        "linked videos together; -: undefined",
        f"{evaluation.n_dropped} videos are left out, being in no split; "
        f"{evaluation.n_rejected} files were unusable",
    ]
    if evaluation.caution:
        lines.append(f"CAUTION: {evaluation.caution}")
    return "\n".join(lines)


def _metrics(evaluation: Evaluation, split: str) -> list[str]:
    metrics = evaluation.metrics[DETECTOR][split]
    lines = [f"  {metric:18}{metrics[metric]}" for metric in (*SHOWN, "threshold")]
    lines += [f"  {name:18}{metrics['confusion'][row]}" for row, name in enumerate(CONFUSION)]
    if caution := chance(metrics["auc_p_value"]):
        lines.append(f"  The AUC is {caution}.")
    return lines


def _controls(evaluation: Evaluation, split: str) -> list[str]:
    lines = [f"  {'':18}" + "".join(f"{metric:24}" for metric in COMPARED)]
    for name, metrics in evaluation.metrics_on(split).items():
        lines.append(f"  {name:18}" + "".join(f"{metrics[m]!s:24}" for m in COMPARED))
    return [line.rstrip() for line in lines]


def _parts(parts: Mapping[str, Part], title: str) -> list[str]:
    if not parts:
        return []
    width = max(18, *(1 + len(name[-MAX_NAME:]) for name in parts))
    columns = f"{'real':>6}{'fake':>6}  {'auc_roc':22}{'fakes called fake':22}reals called fake"
    lines = [f"  by {title}", f"  {'':{width}}{columns}"]
    for name, part in parts.items():
        lines.append(
            f"  {name[-MAX_NAME:]:{width}}{part.real:>6}{part.fake:>6}  {part.auc_roc!s:22}"
            f"{part.fakes_called_fake!s:22}{part.reals_called_fake}"
        )
    return lines
