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
from model.prediction.predict_videos import predict_unordered
from model.reports.run_report import PAGES_FOLDER
from model.reports.video_report import evidence_video_of, write_video_report
from model.run.run import Run, digest_of
from model.run.source_files import find_videos
from pipeline.cache import Cache
from pipeline.common.errors import PipelineError
from pipeline.workers.local import Pool


@dataclass(frozen=True)
class MistakePages:
    """Pages about the worst mistakes, as `write_mistake_pages` leaves them."""

    pages: list[Path]  # the worst mistake first
    missing: dict[str, str]  # video id → why there is no page about it
    command: str  # writes the missing pages, once the videos or weights are back

    def __str__(self) -> str:
        if not self.pages and not self.missing:
            return "no page about a mistake: there is none"
        lines = []
        if self.pages:
            lines.append(f"pages about {len(self.pages)} of the worst mistakes:")
            lines += [f"  {page}" for page in self.pages]
        by_reason = defaultdict(list)
        for video, reason in self.missing.items():
            by_reason[reason].append(video)
        lines += [f"no page about {', '.join(ids)}: {why}" for why, ids in by_reason.items()]
        if self.missing:
            lines.append(f"  {self.command} [--videos FOLDER] [--weights PATH] makes up for that")
        return "\n".join(lines)


def write_mistake_pages(
    run: Run,
    cache: Cache,
    evaluation: Evaluation,
    load: Callable[[], Backbone],
    n: int,
    pool: Pool,
    *,
    folder: Path | None = None,
) -> MistakePages:
    """Write a page about each of an evaluation's n worst mistakes into its folder.

    Pages that exist are kept, unless they are about other videos or by another run. `load` is
    called only if there is a page to write; videos are also looked for in `folder`, whatever their
    names.
    """
    worst = [video.id for video in worst_mistakes(evaluation.videos, n)]
    pages = {video: evaluation.folder / PAGES_FOLDER / f"{video}.html" for video in worst}
    digest = digest_of(run)  # stated on every page
    for page in (evaluation.folder / PAGES_FOLDER).glob("*.html"):
        if page not in pages.values() or digest not in page.read_text():
            page.unlink()
            evidence_video_of(page).unlink(missing_ok=True)
    to_write = [video for video in worst if not pages[video].is_file()]
    clips = {clip.video: clip for clip in cache.clips}
    paths: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for video, found in find_videos(
        cache, [clips[video] for video in to_write], folder, pool
    ).items():
        if isinstance(found, Path):
            paths[video] = found
        else:
            missing[video] = str(found)
    if paths:
        try:
            backbone = load()
        except PipelineError as error:
            missing |= dict.fromkeys(paths, str(error))
        else:
            videos = list(paths)
            with contextlib.closing(
                predict_unordered(run, list(paths.values()), backbone, pool, keep_frames=True)
            ) as results:
                for number, examined in results:
                    write_video_report(run, examined, pages[videos[number]], backbone)
    command = ["python", "-m", "model.evaluate", str(run.folder), "--cases", str(n)]
    if cache.sha256 != run.config.cache_sha256:
        command += ["--cache", str(cache.folder)]
    written = [pages[video] for video in worst if video not in missing]
    return MistakePages(written, missing, shlex.join(command))
