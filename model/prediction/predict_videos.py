"""Verdicts on new videos, through exactly the steps and settings of the training videos."""

import contextlib
import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from features.backbones import Backbone, load_backbone
from features.embedding import Arrays, embed_clip
from model.explanation.anomaly import FAR, Anomaly, load_anomaly, percent
from model.explanation.stream_attribution import stream_shares
from model.run.run import Run
from model.run.trained_on import TRAINING, trained_on
from model.statistics.metrics import distance
from model.training.sequences import join_streams
from pipeline.cache import read_shard
from pipeline.common.errors import IntegrityError, Rejected, SettingsError
from pipeline.common.files import one_line, scratch_folder
from pipeline.extraction.new_videos import Change, extract_new
from pipeline.settings import Settings
from pipeline.video.probe import Probe
from pipeline.workers.local import LocalPool, Pool

KNOWN = "The detector was trained on this very file: what it says of it is too good to be true."
FOREIGN = (
    f"It moves more than {FAR:g} times as far from usual as any real training video: the detector "
    "may not know this kind of video, and what it says of it is a guess."
)


@dataclass(frozen=True)
class Prediction:
    """What can be said of one video.

    Attributes:
        path: of the file.
        verdict: ``fake``, ``real`` or ``undecidable``.
        probability: of being fake; None if there is none.
        threshold: from which on a video is called fake.
        clips: how many clips of the video were looked at.
        reason: why it is undecidable, else empty.
        warning: what to know about the run, that it was trained on this file, or that it may not
            know this kind of video; usually empty.
        anomaly: the share of real training videos that move less strangely, 0..1; None if it is
            not known.
        strangest: what is strange about the motion, in robust standard deviations of real clips.
        streams: what each stream adds to the log-odds of being fake.
        sha256: of the file; empty if it is unusable.
    """

    path: str
    verdict: str
    probability: float | None
    threshold: float
    clips: int
    reason: str
    warning: str
    anomaly: float | None = None
    strangest: str = ""
    streams: Mapping[str, float] = field(default_factory=dict)
    sha256: str = ""


def backbone_of(run: Run, weights: str | None = None, device: str = "auto") -> Backbone:
    """The backbone that a run was trained over, with the very same weights.

    Args:
        run: a trained run.
        weights: the file of the weights, where they were given as one.
        device: as torch names it, or ``auto``.

    Raises:
        SettingsError: the weights were given as a file, and are needed again.
        IntegrityError: these are other weights.
    """
    embedding = run.config.embedding
    if weights is None and embedding["weights"] == "file":
        raise SettingsError(
            f"{run.folder} was trained over {embedding['backbone']} weights from a file",
            "give that file with --weights PATH",
        )
    backbone = load_backbone(
        embedding["backbone"], weights or embedding["weights"], device, embedding["precision"]
    )
    if backbone.sha256 != embedding["weights_sha256"]:
        raise IntegrityError(
            f"these are not the {embedding['backbone']} weights that {run.folder} was trained over",
            f"their sha256 should be {embedding['weights_sha256']}",
        )
    return backbone


class Predictor(Protocol):
    """What `predict_unordered` does, and may do besides."""

    def __call__(
        self, run: Run, paths: Sequence[Path], backbone: Backbone, pool: Pool
    ) -> Generator[tuple[int, Prediction], None, None]:
        """Yield the position of each path, and what can be said of it, as it is done."""


def predict(
    run: Run,
    paths: Sequence[Path],
    backbone: Backbone,
    *,
    jobs: int | None = None,
    judging: Predictor | None = None,
) -> Generator[Prediction, None, None]:
    """Judge videos, in the order given.

    Args:
        run: a trained run.
        paths: video files.
        backbone: as `backbone_of` gives it.
        jobs: processes that decode; by default one per core.
        judging: by default `predict_unordered`.
    """
    waiting: dict[int, Prediction] = {}
    following = 0
    with (
        tqdm(total=len(paths), desc="predict", unit="video", disable=None) as bar,
        contextlib.closing(
            (judging or predict_unordered)(run, paths, backbone, LocalPool(jobs))
        ) as judged,
    ):
        for number, prediction in judged:
            waiting[number] = prediction
            bar.update()
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def predict_unordered(
    run: Run,
    paths: Sequence[Path],
    backbone: Backbone,
    pool: Pool,
    change: Change | None = None,
) -> Generator[tuple[int, Prediction], None, None]:
    """Judge videos in the order in which they are done; close it to remove temporary files.

    Args:
        run: a trained run.
        paths: video files.
        backbone: as `backbone_of` gives it.
        pool: where decoding runs.
        change: judge changed copies of the videos.

    Yields:
        the position of a path, and what can be said of it.
    """
    settings = Settings.from_json(run.config.extraction)
    with contextlib.closing(
        examine(run, paths, backbone, pool, settings=settings, change=change)
    ) as examined:
        for number, one in examined:
            yield number, one.prediction


@dataclass(frozen=True)
class Examined:
    """A verdict, and what it rests on.

    Attributes:
        prediction: what can be said of the video.
        facts: of the file; None if it could not be read.
        clips: of each clip its arrays, as a shard has them; none if there is no verdict.
        motion: of each clip (T-1, K) float32, its descriptors of motion.
        anomaly: what motion is usual; None if the run has no density of motion.
    """

    prediction: Prediction
    facts: Probe | None = None
    clips: tuple[Arrays, ...] = ()
    motion: tuple[npt.NDArray[np.float32], ...] = ()
    anomaly: Anomaly | None = None


def examine(
    run: Run,
    paths: Sequence[Path],
    backbone: Backbone,
    pool: Pool,
    *,
    settings: Settings | None = None,
    change: Change | None = None,
) -> Generator[tuple[int, Examined], None, None]:
    """Judge videos, and keep what the verdict rests on; see `predict_unordered`.

    Args:
        run: a trained run.
        paths: video files.
        backbone: as `backbone_of` gives it.
        pool: where decoding runs.
        settings: of extraction; by default those of the run, and frames are kept.
        change: judge changed copies of the videos.

    Yields:
        the position of a path, and what was found.
    """
    settings = settings or dataclasses.replace(
        Settings.from_json(run.config.extraction), keep_frames=True
    )
    anomaly = load_anomaly(run.folder)
    learned = trained_on(run.folder) if (run.folder / TRAINING).is_file() else set()
    with (
        scratch_folder() as folder,
        contextlib.closing(
            extract_new(paths, folder, settings, run.config.frames, pool, change)
        ) as videos,
    ):
        for number, video in videos:
            if isinstance(video, Rejected):
                yield number, Examined(unusable(run, paths[number], video))
                continue
            clips = tuple(read_shard(folder, video.shard).values())
            (folder / video.shard).unlink()
            prediction, motion = _judge(run, paths[number], clips, backbone, anomaly)
            sha256 = video.facts.sha256
            known = KNOWN if f"sha256:{sha256}" in learned else ""
            foreign = FOREIGN if anomaly and anomaly.is_foreign(motion) else ""
            warning = " ".join(filter(None, [prediction.warning, known, foreign]))
            prediction = dataclasses.replace(prediction, warning=warning, sha256=sha256)
            yield number, Examined(prediction, video.facts, clips, motion, anomaly)


def unusable(run: Run, path: Path, why: Rejected) -> Prediction:
    """What can be said of a file that nothing can be computed of."""
    threshold, warning = run.config.threshold, " ".join(run.config.warnings)
    reason = f"{why.reason}: {why.detail}" if why.detail else why.reason
    return Prediction(str(path), "undecidable", None, threshold, 0, reason, warning)


def _judge(
    run: Run,
    path: Path,
    clips: Sequence[Arrays],
    backbone: Backbone,
    anomaly: Anomaly | None,
) -> tuple[Prediction, tuple[npt.NDArray[np.float32], ...]]:
    threshold, warning = run.config.threshold, " ".join(run.config.warnings)
    embedded = [embed_clip(arrays, backbone, run.config.options) for arrays in clips]
    motion = tuple(one["motion"] for one in embedded)
    x = torch.from_numpy(np.stack([join_streams(one, run.config.streams) for one in embedded]))
    with torch.inference_mode():
        logits = run.ensemble(x).double().numpy()
    probability = float(run.probabilities(logits.mean()))
    if np.isnan(probability):
        reason = "no number came out"
        of_run = (str(path), "undecidable", None, threshold, 0, reason, warning)
        return Prediction(*of_run), motion
    verdict, reason = "fake" if probability >= threshold else "real", ""
    if distance(np.array(probability), threshold) < run.config.margin:
        verdict, reason = "undecidable", "too close to call"
    strange = anomaly.of_video(motion) if anomaly else (None, "")
    found = (str(path), verdict, probability, threshold, len(x), reason, warning)
    return Prediction(*found, *strange, stream_shares(run, x)), motion


def sentence(prediction: Prediction) -> str:
    """A prediction as one line of text."""
    if prediction.probability is None:
        return f"{one_line(prediction.path)}: undecidable ({one_line(prediction.reason)})"
    reason = f" ({prediction.reason})" if prediction.reason else ""
    motion = ""
    if prediction.anomaly is not None:
        motion = (
            f"; motion stranger than {percent(prediction.anomaly)} of real training videos "
            f"({prediction.strangest})"
        )
    return (
        f"{one_line(prediction.path)}: {prediction.verdict}{reason}, probability of being fake "
        f"{prediction.probability:.3f} (called fake from {prediction.threshold:.3f} on){motion}"
        + "".join(f"\n  WARNING: {caution}" for caution in cautions(prediction))
    )


def cautions(prediction: Prediction) -> list[str]:
    """What to know about this very video, of all that its warning says."""
    return [caution for caution in (KNOWN, FOREIGN) if caution in prediction.warning]
