"""The page that leads to the pages of several videos."""

from collections.abc import Sequence
from pathlib import Path

from model.explanation.anomaly import percent
from model.prediction.predict_videos import Prediction, cautions
from model.run.run import Run, digest_of
from pipeline.common.html_page import write_page

INDEX = "index.html"
_TEMPLATE = Path(__file__).parent / "verdicts.html"


def write_verdicts(folder: Path, run: Run, judged: Sequence[tuple[Prediction, Path]]) -> Path:
    """Write a page of all verdicts, the probablest fakes first and the undecidable last.

    Args:
        folder: of the page; a file `INDEX` that is there is replaced.
        run: that judged.
        judged: predictions, and the pages about them, which lie in the folder.

    Returns:
        the path of the page.
    """
    rows = [(found, page.name) for found, page in judged]
    rows.sort(key=lambda row: (row[0].probability is None, -(row[0].probability or 0)))
    values = {
        "run": run.folder.name,
        "digest": digest_of(run),
        "threshold": run.config.threshold,
        "warnings": run.config.warnings,
        "rows": rows,
        "n_fake": sum(found.verdict == "fake" for found, _ in rows),
        "n_real": sum(found.verdict == "real" for found, _ in rows),
        "has_anomaly": any(found.anomaly is not None for found, _ in rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_page(folder / INDEX, _TEMPLATE, values, {"percent": percent, "cautions": cautions})
    return folder / INDEX
