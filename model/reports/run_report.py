"""Report of a run: one self-contained HTML file."""

import base64
import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.evaluation.controls import EXPLAINED
from model.evaluation.evaluation import DETECTOR, Evaluation
from model.evaluation.per_video import ENSEMBLE, OUT_OF_FOLD, WRONG, VideoResult, worst_mistakes
from model.reports.summary import CONFUSION, PARTS, SHOWN, chance, headline
from model.robustness.table import for_report
from model.run.per_video_scores import PREDICTIONS, UNSEEN
from model.run.run import Run
from pipeline.common.html_page import write_page

CURVES = {
    "roc.png": "ROC curves",
    "precision_recall.png": "Precision over recall",
    "reliability.png": "Share of fakes over stated probability",
}
TRAINING = {
    "training.png": "Losses and validation AUC over the epochs of each fold",
    "tuning.png": "Losses of the trials of tuning, and how the loss depends on each setting",
}
COLUMNS = {  # of the table of videos: attribute of VideoResult → title
    "id": "video",
    "file": "file",
    "split": "split",
    "label": "label",
    "probability": "probability",
    "verdict": "verdict",
    "outcome": "outcome",
    "scored_by": "scored by",
    "anomaly": "anomaly",
    "manipulation": "manipulation",
    "source": "source",
}
REQUIRED_COLUMNS = ("id", "split", "label", "probability", "verdict", "outcome", "scored_by")
NUMBER_COLUMNS = ("probability", "anomaly")
SEARCHED_COLUMNS = ("id", "file", "source", "manipulation")
FILTERED_COLUMNS = ("split", "label", "outcome")
DIGITS = 6
MAX_ROWS = 20_000  # of the table of videos, about 130 bytes each
N_MISTAKES = 10
PAGES_FOLDER = "cases"  # a page about each of some videos, in the folder of the evaluation
_TEMPLATE = Path(__file__).parent / "run.html"


def write_report(run: Run, evaluation: Evaluation) -> Path:
    """Write ``report.html`` into the evaluation's folder and return its path."""
    path = evaluation.folder / "report.html"
    write_page(path, _TEMPLATE, _template_values(run, evaluation))
    return path


def _template_values(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    elsewhere = evaluation.folder != run.folder
    listed = _select_rows(evaluation.videos, elsewhere=elsewhere)
    columns = _columns(listed)
    pages = sorted(path.stem for path in (evaluation.folder / PAGES_FOLDER).glob("*.html"))
    return {
        "title": f"Run {run.folder.name}" + (f" on {evaluation.folder.name}" if elsewhere else ""),
        "elsewhere": elsewhere,
        "warnings": evaluation.warnings,
        "headline": headline(evaluation).splitlines(),
        "config": run.config,
        "evaluation": evaluation,
        "shown": SHOWN,
        "confusion": CONFUSION,
        "chance": chance,
        "detector": DETECTOR,
        "explained": EXPLAINED,
        "parts": PARTS,
        "curves": _images(evaluation.folder, CURVES),
        "training": _images(evaluation.folder, TRAINING),
        "mistakes": worst_mistakes(evaluation.videos, N_MISTAKES),
        "n_scored": sum(video.scored_by == ENSEMBLE for video in evaluation.videos),
        "n_wrong": len(worst_mistakes(evaluation.videos, len(evaluation.videos))),
        "cases": pages,
        "more_cases": "python -m model.evaluate "
        f"{shlex.quote(str(run.folder))} --cases {N_MISTAKES}",
        "columns": columns,
        "numbers": NUMBER_COLUMNS,
        "videos": _table(listed, columns, pages, elsewhere=elsewhere),
        "n_listed": len(listed),
        "filters": {
            key: dict(sorted(Counter(getattr(video, key) for video in listed).items()))
            for key in FILTERED_COLUMNS
        },
        "n_unseen": sum(_is_unseen(video, elsewhere=elsewhere) for video in listed),
        "out_of_fold": OUT_OF_FOLD,
        "predictions": PREDICTIONS,
        "settings": json.dumps(dataclasses.asdict(run.config), indent=1),
        "sweep": None if elsewhere else for_report(run),
    }


def _images(folder: Path, captions: dict[str, str]) -> dict[str, str]:
    """Return caption → PNG in base64, for the files that exist."""
    return {
        caption: base64.b64encode((folder / name).read_bytes()).decode()
        for name, caption in captions.items()
        if (folder / name).is_file()
    }


def _is_unseen(video: VideoResult, *, elsewhere: bool) -> bool:
    return elsewhere or video.split in UNSEEN


def _select_rows(videos: Sequence[VideoResult], *, elsewhere: bool) -> list[VideoResult]:
    """Return the videos in the table: of too many, unseen and then wrong ones first."""

    def priority(video: VideoResult) -> tuple[bool, bool]:
        return not _is_unseen(video, elsewhere=elsewhere), video.outcome != WRONG

    return list(videos) if len(videos) <= MAX_ROWS else sorted(videos, key=priority)[:MAX_ROWS]


def _columns(videos: Sequence[VideoResult]) -> dict[str, str]:
    """Return key → title of the columns that are not empty."""
    return {
        key: title
        for key, title in COLUMNS.items()
        if key in REQUIRED_COLUMNS or any(getattr(video, key) not in (None, "") for video in videos)
    }


def _table(
    videos: Sequence[VideoResult],
    columns: dict[str, str],
    pages: Sequence[str],
    *,
    elsewhere: bool,
) -> dict[str, Any]:
    """Return what ``run.js`` builds the table from."""
    ids = {video.id for video in videos}
    return {
        "columns": [
            {
                "key": key,
                "title": title,
                "number": key in NUMBER_COLUMNS,
                "find": key in SEARCHED_COLUMNS,
            }
            for key, title in columns.items()
        ]
        + [{"key": "unseen", "title": "", "number": False, "find": False}],
        "rows": [
            [
                *(_cell(getattr(video, key)) for key in columns),
                _is_unseen(video, elsewhere=elsewhere),
            ]
            for video in videos
        ],
        "cases": [video for video in pages if video in ids],
    }


def _cell(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value
