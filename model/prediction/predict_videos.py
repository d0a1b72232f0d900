"""Verdicts on new videos, by the same steps and settings as for the training videos."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from features.backbones import Backbone, load_backbone
from features.embedding import Arrays, embed_clip
from features.settings import Options
from features.trajectory import column_names
from model.explanation.anomaly import MAX_FAMILIAR, UNUSUAL_QUANTILE, Anomaly, percent
from model.explanation.stream_attribution import stream_shares
from model.explanation.unusual import COMBINED, UNUSUAL, USUAL, Unusual, is_unusual, load_unusual
from model.run.run import UNDECIDABLE, Run
from model.run.trained_on import trained_on
from model.training.sequences import join_streams
from pipeline.cache import read_shard
from pipeline.common.errors import IntegrityError, Rejected, SettingsError
from pipeline.common.files import one_line, scratch_folder
from pipeline.extraction.new_videos import Change, extract_new
from pipeline.settings import Settings
from pipeline.video.probe import Probe
from pipeline.workers.local import LocalPool, Pool

SEEN_IN_TRAINING_WARNING = (
    "The detector was trained on this very file: what it says of it is too good to be true."
)
UNFAMILIAR_MOTION_WARNING = (
    f"It moves more than {MAX_FAMILIAR:g} times as far from usual as any real training video: the "
    "detector may not know this kind of video, and what it says of it is a guess."
)
Only = Literal["anomaly", "detector"]  # what to compute; both by default


@dataclass(frozen=True)
class Prediction:
    """The verdict on one video; its fields are the columns of ``-o`` and the keys of ``--json``.

    Attributes:
        verdict: ``fake``, ``real`` or ``undecidable``; by scores alone that never saw a fake,
            ``unusual``, ``usual`` or ``undecidable``, see `is_unusual`.
        probability: probability of being fake; None if there is none.
        threshold: probability from which a video is called fake; None if no detector was asked.
        clips: number of clips that were scored.
        reason: why it is undecidable, else empty.
        warning: warnings about the run and about this video; usually empty.
        anomaly: share of real training videos whose motion is less unusual, 0..1; None if unknown.
        strangest: the most unusual motion descriptors, in robust standard deviations.
        streams: stream → its contribution to the log-odds of being fake.
        sha256: of the file; empty if it is unusable.
        unusual: score that never saw a fake → share of real training videos that are less unusual
            by it, 0..1; see `model.explanation.unusual`.
    """

    path: str
    verdict: str
    probability: float | None
    threshold: float | None
    clips: int
    reason: str
    warning: str
    anomaly: float | None = None
    strangest: str = ""
    streams: Mapping[str, float] = field(default_factory=dict)
    sha256: str = ""
    unusual: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ExaminedVideo:
    """A verdict and what it rests on; an unusable file has no metadata and no clips."""

    prediction: Prediction
    anomaly: Anomaly
    metadata: Probe | None = None
    clips: tuple[Arrays, ...] = ()  # as in a shard
    motion: tuple[npt.NDArray[np.float32], ...] = ()  # descriptors of each clip, (T-1, K)


def backbone_of(run: Run, weights: str | None = None, device: str = "auto") -> Backbone:
    """Load the backbone that a run was trained on.

    Args:
        run: trained run.
        weights: path of the weights, if they were given as a file.
        device: as PyTorch names it, or ``auto``.

    Raises:
        SettingsError: the weights were given as a file, whose path is needed again.
        IntegrityError: the weights are others, or columns of trajectories are.
    """
    embedding = run.config.embedding
    if weights is None and embedding["weights"] == "file":
        raise SettingsError(
            f"{run.folder} was trained over {embedding['backbone']} weights from a file",
            "give that file with --weights PATH",
        )
    unusual = load_unusual(run.folder)
    names = run.config.trajectory or (unusual.trajectory.names if unusual.trajectory else ())
    backbone = load_backbone(
        embedding["backbone"],
        weights or embedding["weights"],
        device,
        embedding["precision"],
        embedding.get("depths", ()) if names else (),
    )
    if backbone.sha256 != embedding["weights_sha256"]:
        raise IntegrityError(
            f"these are not the {embedding['backbone']} weights that {run.folder} was trained over",
            f"their sha256 should be {embedding['weights_sha256']}",
        )
    columns = column_names(_options(run, unusual, None).streams, backbone.depths)
    if names and list(names) != columns:
        raise IntegrityError(
            f"trajectories have other columns than those that {run.folder} was trained on",
            "embed the corpus again and fit again, or use the version that made the run",
        )
    return backbone


def predict(
    run: Run,
    paths: Sequence[Path],
    backbone: Backbone,
    *,
    jobs: int | None = None,
    pool: Pool | None = None,
    refused: Mapping[Path, Rejected] | None = None,
    report: Callable[[ExaminedVideo], object] | None = None,
    only: Only | None = None,
) -> Generator[Prediction, None, None]:
    """Predict videos, in the order of their paths; close it to remove temporary files.

    Args:
        run: trained run.
        paths: video files.
        backbone: the run's backbone, from `backbone_of`.
        jobs: processes that decode; by default one per core.
        pool: where decoding runs instead; ``jobs`` is not used then.
        refused: paths that must not be opened → why; they are undecidable.
        report: called with each examined video, whose clips then have frames.
        only: ``anomaly``: scores that never saw a fake, and no probability; what a run without a
            detector does anyway. ``detector``: without those scores.
    """
    pool = pool or LocalPool(jobs)
    unordered = predict_unordered(
        run, paths, backbone, pool, keep_frames=report is not None, refused=refused, only=only
    )
    waiting: dict[int, Prediction] = {}
    following = 0
    with (
        tqdm(total=len(paths), desc="predict", unit="video", disable=None) as bar,
        contextlib.closing(unordered) as examined,
    ):
        for number, video in examined:
            if report:
                report(video)
            waiting[number] = video.prediction
            bar.update()
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def predict_unordered(
    run: Run,
    paths: Sequence[Path],
    backbone: Backbone,
    pool: Pool,
    *,
    keep_frames: bool = False,
    change: Change | None = None,
    refused: Mapping[Path, Rejected] | None = None,
    only: Only | None = None,
) -> Generator[tuple[int, ExaminedVideo], None, None]:
    """Yield the index of a path and its examined video as each is done.

    `change` writes a perturbed copy, which is predicted instead of the video. Close the generator
    to remove temporary files.
    """
    refused = refused or {}
    only = only if run.config.is_detector else "anomaly"
    unusual = load_unusual(run.folder)
    anomaly = unusual.motion
    for number, path in enumerate(paths):
        if path in refused:
            yield number, ExaminedVideo(_undecidable(run, path, refused[path], only), anomaly)
    numbers = [number for number, path in enumerate(paths) if path not in refused]
    usable = [paths[number] for number in numbers]
    settings = Settings.from_json(run.config.extraction)
    if keep_frames:
        settings = dataclasses.replace(settings, keep_frames=True)
    training_keys = trained_on(run.folder)
    with (
        scratch_folder() as folder,
        contextlib.closing(
            extract_new(usable, folder, settings, run.config.frames, pool, change)
        ) as extracted,
    ):
        for n, video in extracted:
            if isinstance(video, Rejected):
                yield numbers[n], ExaminedVideo(_undecidable(run, usable[n], video, only), anomaly)
                continue
            clips = tuple(read_shard(folder, video.shard).values())
            (folder / video.shard).unlink()
            seen = f"sha256:{video.metadata.sha256}" in training_keys
            yield (
                numbers[n],
                _examine(run, usable[n], video.metadata, clips, backbone, unusual, only, seen=seen),
            )


def _undecidable(
    run: Run,
    path: Path,
    why: Rejected,
    only: Only | None,
    warnings: Sequence[str] = (),
    sha256: str = "",
) -> Prediction:
    reason = f"{why.reason}: {why.detail}" if why.detail else why.reason
    warning = " ".join([*run.config.warnings, *warnings])
    threshold = None if only == "anomaly" else run.config.threshold
    return Prediction(str(path), UNDECIDABLE, None, threshold, 0, reason, warning, sha256=sha256)


def _examine(
    run: Run,
    path: Path,
    metadata: Probe,
    clips: tuple[Arrays, ...],
    backbone: Backbone,
    unusual: Unusual,
    only: Only | None,
    *,
    seen: bool,
) -> ExaminedVideo:
    options = _options(run, unusual, only)
    by_head = only != "anomaly" and "trajectory" in run.config.streams
    if not by_head and (only == "detector" or not unusual.trajectory):
        backbone = dataclasses.replace(backbone, depths=())
    embedded = [embed_clip(arrays, backbone, options) for arrays in clips]
    motion = tuple(arrays["motion"] for arrays in embedded)
    rate = Settings.from_json(run.config.extraction).rate(metadata.fps)
    quantiles = {} if only == "detector" else unusual.of_video(embedded, rate)
    warnings = [SEEN_IN_TRAINING_WARNING] if seen else []
    why = Rejected("no number came out")
    if only == "anomaly":
        prediction = _undecidable(run, path, why, only, warnings, metadata.sha256)
        verdict = (UNUSUAL if is_unusual(quantiles) else USUAL) if quantiles else None
    else:
        x = torch.from_numpy(  # (N, L, D) float32
            np.stack([join_streams(arrays, run.config.streams) for arrays in embedded])
        )
        with torch.inference_mode():
            logits = run.ensemble(x).double().numpy()  # (N,)
        probability = float(run.probabilities(logits.mean()))
        if unusual.motion.is_unfamiliar(motion):
            warnings.append(UNFAMILIAR_MOTION_WARNING)
        prediction = _undecidable(run, path, why, only, warnings, metadata.sha256)
        verdict = None if np.isnan(probability) else run.verdict(probability)
        if verdict:
            prediction = dataclasses.replace(
                prediction, probability=probability, streams=stream_shares(run, x)
            )
    if verdict:
        quantile, strangest = unusual.motion.of_video(motion)
        prediction = dataclasses.replace(
            prediction,
            verdict=verdict,
            clips=len(clips),
            reason="too close to call" if verdict == UNDECIDABLE else "",
            anomaly=quantile,
            strangest=strangest,
            unusual=quantiles,
        )
    return ExaminedVideo(prediction, unusual.motion, metadata, clips, motion)


def _options(run: Run, unusual: Unusual, only: Only | None) -> Options:
    """Return the options to embed a clip: the streams that the head and the scores use."""
    everything = Options.from_json(run.config.embedding)
    used = set() if only == "anomaly" else set(run.config.options.streams)
    if only != "detector":
        used |= unusual.streams
    streams = tuple(stream for stream in everything.streams if stream in used)
    return dataclasses.replace(everything, streams=streams, augment=())


def sentence(prediction: Prediction) -> str:
    """Format a prediction as one line, and a line for each warning about the video."""
    if prediction.verdict in (UNUSUAL, USUAL):
        return _unusual_sentence(prediction) + _warning_lines(prediction)
    if prediction.probability is None or prediction.threshold is None:
        return f"{one_line(prediction.path)}: undecidable ({one_line(prediction.reason)})"
    reason = f" ({prediction.reason})" if prediction.reason else ""
    motion = ""
    if prediction.anomaly is not None:
        motion = (
            f"; motion stranger than {percent(prediction.anomaly)} of real training videos "
            f"({prediction.strangest})"
        )
    others = ""
    if len(prediction.unusual) > 1:
        others = f"\n  real training videos that are less unusual: {_shares(prediction)}"
    return (
        f"{one_line(prediction.path)}: {prediction.verdict}{reason}, probability of being fake "
        f"{prediction.probability:.3f} (called fake from {prediction.threshold:.3f} on){motion}"
        f"{others}" + _warning_lines(prediction)
    )


def _unusual_sentence(prediction: Prediction) -> str:
    decisive = COMBINED if COMBINED in prediction.unusual else "motion"
    return (
        f"{one_line(prediction.path)}: {prediction.verdict}, "
        f"{percent(prediction.unusual[decisive])} of real training videos are less unusual (called "
        f"unusual above {percent(UNUSUAL_QUANTILE)}, which does not say whether it is fake)\n"
        f"  by score: {_shares(prediction)}"
        + (f"; motion: {prediction.strangest}" if prediction.strangest else "")
    )


def _shares(prediction: Prediction) -> str:
    return ", ".join(f"{name} {percent(share)}" for name, share in prediction.unusual.items())


def _warning_lines(prediction: Prediction) -> str:
    return "".join(f"\n  WARNING: {warning}" for warning in video_warnings(prediction))


def video_warnings(prediction: Prediction) -> list[str]:
    """Return the warnings that are about this video, not about the run."""
    about_video = (SEEN_IN_TRAINING_WARNING, UNFAMILIAR_MOTION_WARNING)
    return [warning for warning in about_video if warning in prediction.warning]
