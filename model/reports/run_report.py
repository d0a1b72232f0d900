"""The report of a run: one HTML file that needs nothing else."""

import base64
import dataclasses
import json
from pathlib import Path

import jinja2

from model.evaluation.controls import EXPLAINED
from model.evaluation.evaluation import DETECTOR, Evaluation
from model.reports.summary import CONFUSION, PARTS, SHOWN, chance
from model.run import Run
from model.sweep.table import for_report
from pipeline.files import write_whole

IMAGES = {
    "training.png": "Losses and validation AUC over the epochs of each fold",
    "tuning.png": "Losses of the trials of tuning, and how the loss depends on each setting",
    "roc.png": "ROC curves",
    "precision_recall.png": "Precision over recall",
    "reliability.png": "Share of fakes over stated probability",
}


def write_report(run: Run, evaluation: Evaluation) -> Path:
    """Write ``report.html`` into the evaluation's folder and return its path."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("model.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    images = {
        caption: base64.b64encode((evaluation.folder / name).read_bytes()).decode()
        for name, caption in IMAGES.items()
        if (evaluation.folder / name).is_file()
    }
    page = templates.get_template("run.html").render(
        title=_title(run, evaluation),
        warnings=evaluation.warnings,
        config=run.config,
        evaluation=evaluation,
        shown=SHOWN,
        confusion=CONFUSION,
        chance=chance,
        detector=DETECTOR,
        explained=EXPLAINED,
        parts=PARTS,
        images=images,
        settings=json.dumps(dataclasses.asdict(run.config), indent=1),
        sweep=for_report(run) if evaluation.folder == run.folder else None,
    )
    path = evaluation.folder / "report.html"
    write_whole(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _title(run: Run, evaluation: Evaluation) -> str:
    elsewhere = evaluation.folder != run.folder
    return f"Run {run.folder.name}" + (f" on {evaluation.folder.name}" if elsewhere else "")
