"""The report of one video: a page that needs nothing else, and the video of its evidence."""

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.backbones import Backbone
from model.explanation.anomaly import percent
from model.explanation.explain import explain_clip
from model.explanation.explanation import Band, Faithfulness
from model.explanation.occlusion_over_time import load_band
from model.prediction.predict_videos import Examined, Prediction, cautions, examine
from model.reports.evidence_video import (
    FAKE,
    REAL,
    TITLES,
    Evidence,
    Overlay,
    Picture,
    Scales,
    encode,
    flow_colours,
    panes,
    resized,
    scales_of,
)
from model.reports.key_moments import Moment, strangest
from model.reports.provenance import looked_at, record, tested
from model.reports.timeline import HEIGHT, Plot, plots
from model.run.run import Run
from pipeline.common.files import whole_file
from pipeline.common.html_page import jpeg_uri, write_page
from pipeline.video.probe import Probe
from pipeline.workers.local import Pool

VIDEO_BYTES = 13e6  # at most, so that a page stays below 20 MB
STILL = 224  # pixels, the longer side
TICKS = 5  # times written below the curves
DRIVERS = 6  # of the strangeness of a video
QUALITY = 80  # of its JPEG, of 100
_TEMPLATE = Path(__file__).parent / "case.html"


@dataclass(frozen=True)
class Still:
    """A moment and its pictures: the title of each → a data URI."""

    moment: Moment
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """Everything that a page shows of a video that could be looked at."""

    clips: Sequence[Evidence]
    plots: Sequence[Plot]
    band: Band | None
    stills: Sequence[Still]
    scales: Scales
    overlay: Overlay
    drivers: Sequence[tuple[str, float, float]]


def page_of(folder: Path, path: Path) -> Path:
    """Where the page of a video is written: named after it, and after the folder it is in."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - any name will do, and links are not followed
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_-")[:80] or "video"
    return folder / f"{name}-{digest}.html"


def overlay_of(page: Path) -> Path:
    """Where the video of evidence beside a page is written."""
    return page.with_suffix(".mp4")


def predict_with_reports(
    run: Run, paths: Sequence[Path], backbone: Backbone, pool: Pool, *, folder: Path
) -> Generator[tuple[int, Prediction], None, None]:
    """Predict videos as `predict_unordered` does, and write a page about each.

    Args:
        run: a trained run.
        paths: video files.
        backbone: as `model.prediction.predict_videos.backbone_of` gives it.
        pool: where decoding runs.
        folder: where the pages are written; it is made.
    """
    with contextlib.closing(examine(run, paths, backbone, pool)) as examined:
        for number, one in examined:
            write_case(run, one, backbone, page_of(folder, paths[number]))
            yield number, one.prediction


def write_case(run: Run, examined: Examined, backbone: Backbone, page: Path) -> None:
    """Write the page of a video and, if it has a probability, the video of its evidence.

    Args:
        run: that judged.
        examined: what it found.
        backbone: that it looked with.
        page: its path; the folder is made.
    """
    if examined.prediction.probability is None:
        write_undecidable(run, examined.prediction, page, examined.facts)
        return
    page.parent.mkdir(parents=True, exist_ok=True)
    case = _case(run, examined, backbone, overlay_of(page))
    _write(page, run, examined, case)


def write_undecidable(
    run: Run, prediction: Prediction, page: Path, facts: Probe | None = None
) -> None:
    """Write the page of a video without a probability: it says why.

    Args:
        run: that could not judge.
        prediction: the reason.
        page: its path; the folder is made.
        facts: of the file, if it could be read.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    overlay_of(page).unlink(missing_ok=True)  # of what the file was before
    _write(page, run, Examined(prediction, facts), None)


def _write(page: Path, run: Run, examined: Examined, case: Case | None) -> None:
    shown = _shown(run, examined, case, overlay_of(page).name if case else "")
    write_page(page, _TEMPLATE, shown, {"percent": percent})


def _case(run: Run, examined: Examined, backbone: Backbone, path: Path) -> Case:
    clips = _explained(run, examined, backbone)
    prediction, band = examined.prediction, load_band(run.folder)
    scales = scales_of(clips)
    curves = plots(clips, prediction.threshold, band)
    leans = (prediction.probability or 0.0) >= prediction.threshold
    moments = strangest(clips, curves, examined.anomaly, fake=leans)
    with whole_file(path) as temporary:
        overlay = encode(clips, scales, temporary, most_bytes=VIDEO_BYTES)
    drivers = examined.anomaly.drivers(examined.motion) if examined.anomaly else []
    stills = [_still(clips[moment.clip], moment, scales) for moment in moments]
    return Case(clips, curves, band, stills, scales, overlay, drivers[:DRIVERS])


def _explained(run: Run, examined: Examined, backbone: Backbone) -> list[Evidence]:
    found = []
    for arrays, motion in zip(examined.clips, examined.motion, strict=True):
        explanation = explain_clip(
            run, arrays, backbone, anomaly=examined.anomaly, faithfulness=True
        )
        found.append(Evidence(arrays, motion, explanation))
    return sorted(found, key=lambda clip: float(clip.times[0]))


def _still(clip: Evidence, moment: Moment, scales: Scales) -> Still:
    pictures = panes(clip, moment.row, scales)
    return Still(moment, {TITLES[name]: _data_uri(one) for name, one in pictures.items()})


def _data_uri(pixels: Picture) -> str:
    height, width = pixels.shape[:2]
    scale = STILL / max(height, width)
    shown = resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return jpeg_uri(shown, QUALITY)


def _shown(run: Run, examined: Examined, case: Case | None, overlay: str) -> dict[str, Any]:
    """What the page shows, by the names that it has in the template."""
    return {
        "name": Path(examined.prediction.path).name,
        "prediction": examined.prediction,
        "warnings": [*run.config.warnings, *cautions(examined.prediction)],
        "config": run.config,
        "tested": tested(run),
        "n_reference": len(examined.anomaly.reference) if examined.anomaly else 0,
        "case": case,
        "page": _of_player(case) if case else {},
        "faithfulness": _faithfulness(case.clips) if case else {},
        "seconds": looked_at(case.clips) if case else [],
        "record": record(run, examined, case.clips if case else ()),
        "overlay": overlay,
        "fake": _css(FAKE),
        "real": _css(REAL),
        "flow_colours": [_css(colour) for colour in _flow_legend()],
        "height": HEIGHT,
    }


def _of_player(case: Case) -> dict[str, Any]:
    """What the script and the drawing of the curves need."""
    layout = case.overlay.layout
    seconds = np.concatenate([clip.times for clip in case.clips])
    starts = np.cumsum([0, *(len(clip.times) for clip in case.clips)])[:-1].tolist()
    ticks = np.unique(np.linspace(0, len(seconds) - 1, TICKS).astype(int)).tolist()
    return {
        "video": base64.b64encode(case.overlay.content).decode(),
        "names": {name: TITLES[name] for name in layout.panes},
        "ticks": {place: float(seconds[place]) for place in ticks},
        "n": len(seconds),
        "data": {
            "fps": case.overlay.fps,
            "width": layout.width,
            "height": layout.height,
            "panes": {
                name: dict(zip("xywh", rectangle, strict=True))
                for name, rectangle in layout.panes.items()
            },
            "seconds": np.round(seconds, 3).tolist(),
            "clips": starts,
            "curves": [
                {
                    "title": plot.title,
                    "values": _numbers(plot.values),
                    "stranger": None
                    if plot.stranger_than is None
                    else _numbers(plot.stranger_than),
                }
                for plot in case.plots
            ],
        },
    }


def _numbers(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 3) for value in values.tolist()]


def _faithfulness(clips: Sequence[Evidence]) -> dict[str, Faithfulness]:
    """Of each stream the mean over all clips."""
    return {
        stream: Faithfulness(
            *(
                float(np.mean([getattr(c.explanation.faithfulness[stream], name) for c in clips]))
                for name in ("share", "hottest", "random")
            )
        )
        for stream in clips[0].explanation.faithfulness
    }


def _flow_legend() -> Picture:
    return flow_colours(np.linspace(0, 255, 9).astype(np.uint8)[None])[0]


def _css(colour: Any) -> str:
    return f"rgb({', '.join(str(int(part)) for part in colour)})"
