"""Index page that leads to the pages of several videos."""

from collections.abc import Sequence
from pathlib import Path

from model.explanation.anomaly import percent
from model.prediction.predict_videos import Prediction, video_warnings
from model.run.run import Run, digest_of
from pipeline.common.html_page import write_page

INDEX = "index.html"
_TEMPLATE = Path(__file__).parent / "verdicts.html"


def write_verdicts(folder: Path, run: Run, predictions: Sequence[tuple[Prediction, Path]]) -> Path:
    """Write `INDEX` over predictions and their pages, which are in the folder; return its path.

    The most probable fakes come first, undecidable videos last.
    """
    rows = [(prediction, page.name) for prediction, page in predictions]
    rows.sort(key=lambda row: (row[0].probability is None, -(row[0].probability or 0)))
    values = {
        "run": run.folder.name,
        "digest": digest_of(run),
        "threshold": run.config.threshold,
        "warnings": run.config.warnings,
        "rows": rows,
        "n_fake": sum(prediction.verdict == "fake" for prediction, _ in rows),
        "n_real": sum(prediction.verdict == "real" for prediction, _ in rows),
        "has_anomaly": any(prediction.anomaly is not None for prediction, _ in rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_page(folder / INDEX, _TEMPLATE, values, {"percent": percent, "cautions": video_warnings})
    return folder / INDEX
