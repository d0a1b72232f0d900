"""The report of a run: one HTML file that needs nothing else."""

import base64
import dataclasses
import json
from pathlib import Path

import jinja2

from model.evaluation import CONFUSION, SHOWN, Evaluation, show
from model.run import Run
from model.sweep_table import for_report
from pipeline.files import write_whole

IMAGES = {
    "training.png": "Losses and validation AUC over the epochs of each fold",
    "roc.png": "ROC curves on the test split",
    "precision_recall.png": "Precision over recall on the test split",
}


def write_report(run: Run, evaluation: Evaluation) -> Path:
    """Write ``report.html`` into the run's folder and return its path."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("model", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    images = {
        caption: base64.b64encode((run.folder / name).read_bytes()).decode()
        for name, caption in IMAGES.items()
        if (run.folder / name).is_file()
    }
    page = templates.get_template("report.html").render(
        title=f"Run {run.folder.name}",
        warnings=run.config.warnings,
        config=run.config,
        evaluation=evaluation,
        shown=SHOWN,
        confusion=CONFUSION,
        show=show,
        images=images,
        settings=json.dumps(dataclasses.asdict(run.config), indent=1),
        **for_report(run),
    )
    path = run.folder / "report.html"
    write_whole(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path
