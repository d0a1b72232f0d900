"""The report of a run: one HTML file that needs nothing else."""

import base64
import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from model.evaluation.controls import EXPLAINED
from model.evaluation.evaluation import DETECTOR, Evaluation
from model.evaluation.per_video import OUT_OF_FOLD, WRONG, VideoResult, worst_mistakes
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
COLUMNS = {  # of the table of videos
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
ALWAYS = ("id", "split", "label", "probability", "verdict", "outcome", "scored_by")
NUMBERS = ("probability", "anomaly")
SEARCHED = ("id", "file", "source", "manipulation")
DIGITS = 6
MOST = 20_000  # videos in the table; each takes about 120 bytes
MISTAKES = 10
CASES = "cases"  # a folder with a page about each of some videos
_TEMPLATE = Path(__file__).parent / "run.html"


def write_report(run: Run, evaluation: Evaluation) -> Path:
    """Write ``report.html`` into the evaluation's folder and return its path."""
    path = evaluation.folder / "report.html"
    write_page(path, _TEMPLATE, _shown(run, evaluation))
    return path


def _shown(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """What the report shows, by the names that it has in the template."""
    elsewhere = evaluation.folder != run.folder
    listed = _listed(evaluation.videos, elsewhere=elsewhere)
    cases = sorted(path.stem for path in (evaluation.folder / CASES).glob("*.html"))
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
        "mistakes": worst_mistakes(evaluation.videos, MISTAKES),
        "n_wrong": len(worst_mistakes(evaluation.videos, len(evaluation.videos))),
        "cases": cases,
        "more_cases": f"python -m model.evaluate {shlex.quote(str(run.folder))} --cases {MISTAKES}",
        "columns": _columns(listed),
        "numbers": NUMBERS,
        "videos": _table(listed, cases, elsewhere=elsewhere),
        "n_listed": len(listed),
        "filters": _filters(listed),
        "n_unseen": sum(_unseen(video, elsewhere=elsewhere) for video in listed),
        "out_of_fold": OUT_OF_FOLD,
        "predictions": PREDICTIONS,
        "settings": json.dumps(dataclasses.asdict(run.config), indent=1),
        "sweep": None if elsewhere else for_report(run),
    }


def _images(folder: Path, captions: dict[str, str]) -> dict[str, str]:
    """Caption → the picture in base64, of those that there are."""
    return {
        caption: base64.b64encode((folder / name).read_bytes()).decode()
        for name, caption in captions.items()
        if (folder / name).is_file()
    }


def _unseen(video: VideoResult, *, elsewhere: bool) -> bool:
    return elsewhere or video.split in UNSEEN


def _listed(videos: Sequence[VideoResult], *, elsewhere: bool) -> list[VideoResult]:
    """As many as the table holds: unseen ones first, and of these the wrong ones."""

    def last(video: VideoResult) -> tuple[bool, bool]:
        return not _unseen(video, elsewhere=elsewhere), video.outcome != WRONG

    return list(videos) if len(videos) <= MOST else sorted(videos, key=last)[:MOST]


def _columns(videos: Sequence[VideoResult]) -> dict[str, str]:
    """Key → title of those columns that say something."""
    return {
        key: title
        for key, title in COLUMNS.items()
        if key in ALWAYS or any(getattr(video, key) not in (None, "") for video in videos)
    }


def _table(videos: Sequence[VideoResult], cases: Sequence[str], *, elsewhere: bool) -> Markup:
    """What ``run.js`` makes the table of, as JSON that may stand in HTML."""
    columns = _columns(videos)
    ids = {video.id for video in videos}
    found = {
        "columns": [
            {"key": key, "title": title, "number": key in NUMBERS, "find": key in SEARCHED}
            for key, title in columns.items()
        ]
        + [{"key": "unseen", "title": "", "number": False, "find": False}],
        "rows": [
            [*(_cell(getattr(video, key)) for key in columns), _unseen(video, elsewhere=elsewhere)]
            for video in videos
        ],
        "cases": [video for video in cases if video in ids],
    }
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # so that no name ends the script
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _cell(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def _filters(videos: Sequence[VideoResult]) -> dict[str, dict[str, int]]:
    """The values that one can filter by, with how many videos have each."""
    return {
        key: dict(sorted(Counter(getattr(video, key) for video in videos).items()))
        for key in ("split", "label", "outcome")
    }
