"""Pages about the videos that a run is most wrong about."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from features.backbones import Backbone
from model.evaluation.evaluation import Evaluation
from model.evaluation.per_video import worst_mistakes
from model.reports.case import overlay_of, write_case
from model.reports.run_report import CASES
from model.run import Run
from model.sources import find_videos
from model.verdicts.prediction import examine
from pipeline.cache import Cache
from pipeline.workers import LocalPool


@dataclass(frozen=True)
class Cases:
    """What came of it.

    Attributes:
        pages: written, the worst mistake first.
        lost: id of a video → why there is no page about it.
    """

    pages: list[Path]
    lost: dict[str, str]

    def __str__(self) -> str:
        if not self.pages and not self.lost:
            return "no page about a mistake: there is none"
        lines = [f"pages about {len(self.pages)} of the worst mistakes:" if self.pages else ""]
        lines += [f"  {page}" for page in self.pages]
        lines += [
            f"no page about {video}: {why}; --videos FOLDER says where videos are"
            for video, why in self.lost.items()
        ]
        return "\n".join(filter(None, lines))


def write_cases(
    run: Run,
    cache: Cache,
    evaluation: Evaluation,
    backbone: Backbone,
    n: int,
    *,
    folder: Path | None = None,
    jobs: int | None = None,
) -> Cases:
    """Write a page about each of the worst mistakes of an evaluation into its folder.

    Pages of an earlier evaluation are removed.

    Args:
        run: a trained run.
        cache: of embeddings, that the evaluation is of.
        evaluation: of the run on it.
        backbone: as `model.verdicts.prediction.backbone_of` gives it.
        n: pages, at most.
        folder: where videos are looked for besides, whatever they are called.
        jobs: processes that decode; by default one per core.
    """
    worst = [video.id for video in worst_mistakes(evaluation.videos, n)]
    clips = {clip.video: clip for clip in cache.clips}
    pool = LocalPool(jobs)
    found = find_videos(cache, [clips[video] for video in worst], folder, pool)
    there = {video: path for video in worst if isinstance(path := found[video], Path)}
    pages = {video: evaluation.folder / CASES / f"{video}.html" for video in there}
    for page in (evaluation.folder / CASES).glob("*.html"):
        page.unlink()
        overlay_of(page).unlink(missing_ok=True)
    with contextlib.closing(examine(run, list(there.values()), backbone, pool)) as examined:
        for number, one in examined:
            write_case(run, one, backbone, list(pages.values())[number])
    lost = {video: str(found[video]) for video in worst if video not in there}
    return Cases(list(pages.values()), lost)
