"""Report of one video: a self-contained page, and the evidence video beside it."""

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.backbones import Backbone
from model.explanation.anomaly import percent
from model.explanation.exact_split import (
    Split,
    Term,
    by_depth,
    by_statistic,
    mean_split,
    terms_of,
)
from model.explanation.explain import explain_clip
from model.explanation.faithfulness import Faithfulness
from model.explanation.occlusion_over_time import load_band
from model.explanation.unusual import EXPLAINED
from model.prediction.predict_videos import ExaminedVideo, video_warnings
from model.reports.evidence_video import (
    FAKE_COLOUR,
    REAL_COLOUR,
    TITLES,
    ClipEvidence,
    ColourScales,
    EvidenceVideo,
    Picture,
    colour_scales,
    draw_mean_heat,
    draw_panes,
    flow_colours,
    resize,
    write_evidence_video,
)
from model.reports.key_moments import KeyMoment, find_key_moments
from model.reports.provenance import clip_spans, confusion_in_test, provenance_of
from model.reports.timeline import HEIGHT, Curve, curves_of
from model.run.run import Run
from pipeline.common.files import whole_file
from pipeline.common.html_page import jpeg_uri, write_page

MAX_VIDEO_BYTES = 13e6  # keeps a page, which holds the video in base64, below 20 MB
STILL_SIDE = 224  # pixels, the longer side of a still
JPEG_QUALITY = 80  # of stills
N_TICKS = 5  # times written below the curves
N_TERMS = 12  # of the strongest parts of the log-odds
N_DRIVERS = 6  # motion descriptors named as reasons for a strange video
FLOW_LEGEND = np.linspace(0, 255, 9).astype(np.uint8)[None]  # (1, 9)
_TEMPLATE = Path(__file__).parent / "case.html"


@dataclass(frozen=True)
class VideoReport:
    """The part of a page that only videos with a probability have."""

    clips: Sequence[ClipEvidence]  # ordered by time
    curves: Sequence[Curve]
    where: Mapping[str, str]  # title → data URI, heat over the first clip, if it is faithful
    key_moments: Sequence[tuple[KeyMoment, Mapping[str, str]]]  # with stills: title → data URI
    scales: ColourScales
    video: EvidenceVideo
    drivers: Sequence[tuple[str, float, float]]  # descriptor, share of the distance, sd
    parts: "Parts | None"  # for the statistics head


@dataclass(frozen=True)
class Parts:
    """Parts of the log-odds of a video, by what they come from; each table adds up to them."""

    terms: Sequence[Term]  # the strongest
    n_others: int
    others: float  # sum of all other terms
    depths: Mapping[str, float]
    statistics: Mapping[str, float]
    constant: float
    log_odds: float


def page_of(folder: Path, path: Path) -> Path:
    """Return the path of a video's page, unique to the video's path."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - any name will do, and links are not followed
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_-")[:80] or "video"
    return folder / f"{name}-{digest}.html"


def evidence_video_of(page: Path) -> Path:
    """Return the path of the evidence video beside a page."""
    return page.with_suffix(".mp4")


def write_video_report(run: Run, examined: ExaminedVideo, page: Path, backbone: Backbone) -> None:
    """Write the page of a video and, if it has a probability, its evidence video."""
    page.parent.mkdir(parents=True, exist_ok=True)
    path = evidence_video_of(page)
    report = None
    if examined.prediction.probability is None:
        path.unlink(missing_ok=True)  # may show an earlier file of this name
    else:
        report = _explain(run, examined, backbone, path)
    values = _template_values(run, examined, report, path.name if report else "")
    write_page(page, _TEMPLATE, values, {"percent": percent})


def _explain(run: Run, examined: ExaminedVideo, backbone: Backbone, path: Path) -> VideoReport:
    prediction, anomaly = examined.prediction, examined.anomaly
    clips = [
        ClipEvidence(
            arrays,
            motion,
            explain_clip(run, arrays, backbone, anomaly=anomaly, faithfulness=True),
        )
        for arrays, motion in zip(examined.clips, examined.motion, strict=True)
    ]
    clips.sort(key=lambda clip: float(clip.times[0]))
    scales = colour_scales(clips)
    curves = curves_of(clips, run.config.threshold, load_band(run.folder))
    leans_fake = (prediction.probability or 0.0) >= run.config.threshold
    moments = find_key_moments(clips, curves, anomaly, fake=leans_fake)
    with whole_file(path) as temporary:
        video = write_evidence_video(clips, scales, temporary, max_bytes=MAX_VIDEO_BYTES)
    drivers = anomaly.drivers(examined.motion)[:N_DRIVERS]
    stills = [_stills(clips[moment.clip], moment, scales) for moment in moments]
    return VideoReport(
        clips,
        curves,
        _where(clips),
        list(zip(moments, stills, strict=True)),
        scales,
        video,
        drivers,
        _parts(run, [clip.explanation.split for clip in clips]),
    )


def _where(clips: Sequence[ClipEvidence]) -> dict[str, str]:
    """Draw the heat of each stream whose hottest cells matter more than random ones."""
    found = _mean_faithfulness(clips)
    return {
        TITLES[f"heat-{stream}"]: _data_uri(picture)
        for stream, picture in draw_mean_heat(clips[0]).items()
        if found[stream].hottest > found[stream].random
    }


def _parts(run: Run, splits: Sequence[Split | None]) -> Parts | None:
    known = [split for split in splits if split]
    if not known:
        return None
    split = mean_split(known)
    terms = terms_of(run.config, split)
    others = terms[N_TERMS:]
    return Parts(
        terms[:N_TERMS],
        len(others),
        sum(term.log_odds for term in others),
        by_depth(terms),
        by_statistic(split),
        split.constant,
        split.log_odds,
    )


def _stills(clip: ClipEvidence, moment: KeyMoment, scales: ColourScales) -> dict[str, str]:
    panes = draw_panes(clip, moment.row, scales)
    return {TITLES[name]: _data_uri(picture) for name, picture in panes.items()}


def _data_uri(picture: Picture) -> str:
    height, width = picture.shape[:2]
    scale = STILL_SIDE / max(height, width)
    still = resize(picture, max(1, round(width * scale)), max(1, round(height * scale)))
    return jpeg_uri(still, JPEG_QUALITY)


def _template_values(
    run: Run, examined: ExaminedVideo, report: VideoReport | None, video_name: str
) -> dict[str, Any]:
    clips = report.clips if report else ()
    return {
        "name": Path(examined.prediction.path).name,
        "prediction": examined.prediction,
        "warnings": [*run.config.warnings, *video_warnings(examined.prediction)],
        "config": run.config,
        "confusion": confusion_in_test(run),
        "scores": EXPLAINED,
        "n_reference": len(examined.anomaly.reference),
        "report": report,
        "player": _player_values(report) if report else {},
        "faithfulness": _mean_faithfulness(clips),
        "spans": clip_spans(clips),
        "provenance": provenance_of(run, examined, clips),
        "video_name": video_name,
        "fake": _css(FAKE_COLOUR),
        "real": _css(REAL_COLOUR),
        "flow_colours": [_css(colour) for colour in flow_colours(FLOW_LEGEND)[0]],
        "height": HEIGHT,
    }


def _player_values(report: VideoReport) -> dict[str, Any]:
    """Return what the player, its script and the curves need."""
    canvas = report.video.canvas
    seconds = np.concatenate([clip.times for clip in report.clips])
    starts = np.cumsum([0, *(len(clip.times) for clip in report.clips)])[:-1].tolist()
    ticks = np.unique(np.linspace(0, len(seconds) - 1, N_TICKS).astype(int)).tolist()
    return {
        "video": base64.b64encode(report.video.content).decode(),
        "names": {name: TITLES[name] for name in canvas.panes},
        "ticks": {moment: float(seconds[moment]) for moment in ticks},
        "n": len(seconds),
        "data": {
            "fps": report.video.fps,
            "width": canvas.width,
            "height": canvas.height,
            "panes": {
                name: dict(zip("xywh", rectangle, strict=True))
                for name, rectangle in canvas.panes.items()
            },
            "seconds": np.round(seconds, 3).tolist(),
            "clips": starts,
            "curves": [
                {
                    "title": curve.title,
                    "values": _json_numbers(curve.values),
                    "stranger": _json_numbers(curve.stranger_than),
                }
                for curve in report.curves
            ],
        },
    }


def _json_numbers(values: npt.NDArray[np.float64] | None) -> list[float | None] | None:
    if values is None:
        return None
    return [None if np.isnan(value) else round(value, 3) for value in values.tolist()]


def _mean_faithfulness(clips: Sequence[ClipEvidence]) -> dict[str, Faithfulness]:
    """Average each stream's faithfulness over the clips."""
    measured = [clip.explanation.faithfulness for clip in clips]
    return {
        stream: Faithfulness(
            *(
                float(np.mean([getattr(one[stream], name) for one in measured]))
                for name in ("share", "hottest", "random")
            )
        )
        for stream in (measured[0] if measured else ())
    }


def _css(colour: Any) -> str:
    return f"rgb({', '.join(str(int(part)) for part in colour)})"
