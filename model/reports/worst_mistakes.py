"""Pages about the videos that a run is most wrong about."""

import contextlib
import shlex
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from features.backbones import Backbone
from model.evaluation.evaluation import Evaluation
from model.evaluation.per_video import worst_mistakes
from model.prediction.predict_videos import examine
from model.reports.run_report import CASES
from model.reports.video_report import overlay_of, write_case
from model.run.run import Run, digest_of
from model.run.source_files import find_videos
from pipeline.cache import Cache
from pipeline.common.errors import PipelineError
from pipeline.workers.local import LocalPool


@dataclass(frozen=True)
class Cases:
    """What came of it.

    Attributes:
        pages: that there are, the worst mistake first.
        lost: id of a video → why there is no page about it.
        command: that makes those pages, once what they lack is there.
    """

    pages: list[Path]
    lost: dict[str, str]
    command: str

    def __str__(self) -> str:
        if not self.pages and not self.lost:
            return "no page about a mistake: there is none"
        lines = [f"pages about {len(self.pages)} of the worst mistakes:" if self.pages else ""]
        lines += [f"  {page}" for page in self.pages]
        of_reason = defaultdict(list)
        for video, why in self.lost.items():
            of_reason[why].append(video)
        lines += [f"no page about {', '.join(ids)}: {why}" for why, ids in of_reason.items()]
        if self.lost:
            lines.append(f"  {self.command} [--videos FOLDER] [--weights PATH] makes up for that")
        return "\n".join(filter(None, lines))


def write_cases(
    run: Run,
    cache: Cache,
    evaluation: Evaluation,
    load: Callable[[], Backbone],
    n: int,
    *,
    folder: Path | None = None,
    jobs: int | None = None,
) -> Cases:
    """Write a page about each of the worst mistakes of an evaluation into its folder.

    Pages that are there already stay, unless they are about other videos or by another run.

    Args:
        run: a trained run.
        cache: of embeddings, that the evaluation is of.
        evaluation: of the run on it.
        load: gives the backbone, as `model.prediction.backbone_of`; called if there is a
            page to write.
        n: pages, at most.
        folder: where videos are looked for besides, whatever they are called.
        jobs: processes that decode; by default one per core.
    """
    worst = [video.id for video in worst_mistakes(evaluation.videos, n)]
    pages = {video: evaluation.folder / CASES / f"{video}.html" for video in worst}
    digest = digest_of(run)  # which a page states
    for page in (evaluation.folder / CASES).glob("*.html"):
        if page not in pages.values() or digest not in page.read_text():
            page.unlink()
            overlay_of(page).unlink(missing_ok=True)
    missing = [video for video in worst if not pages[video].is_file()]
    clips = {clip.video: clip for clip in cache.clips}
    pool = LocalPool(jobs)
    found = find_videos(cache, [clips[video] for video in missing], folder, pool)
    there = {video: path for video in missing if isinstance(path := found[video], Path)}
    lost = {video: str(found[video]) for video in missing if video not in there}
    try:
        backbone = load() if there else None
    except PipelineError as error:
        backbone, lost = None, lost | dict.fromkeys(there, str(error))
    if backbone:
        with contextlib.closing(examine(run, list(there.values()), backbone, pool)) as examined:
            for number, one in examined:
                write_case(run, one, backbone, pages[list(there)[number]])
    words = ["python", "-m", "model.evaluate", str(run.folder), "--cases", str(n)]
    if cache.sha256 != run.config.cache_sha256:
        words += ["--cache", str(cache.folder)]
    command = shlex.join(words)
    return Cases([pages[video] for video in worst if video not in lost], lost, command)
