"""Command that extracts videos into a cache."""

import dataclasses
import functools
from pathlib import Path
from typing import Literal, get_args

import click
import cloup

from pipeline import farneback
from pipeline.cache import DATACARD, Cache, readable_cache
from pipeline.cache.datacard import caveats
from pipeline.common.cli import Command, log_json_option, number_or
from pipeline.common.errors import SettingsError, TooManyRejects
from pipeline.corpus.options import max_rejects_option, which_videos_options
from pipeline.corpus.reading import read_corpus
from pipeline.corpus.tables import split_lines
from pipeline.extraction.estimate import estimate_extraction
from pipeline.extraction.extract_corpus import extract
from pipeline.extraction.selection import tally
from pipeline.faces import FaceCrop, NoFace, SeveralFaces, find_model
from pipeline.own_fakes.for_a_cache import make_for_cache, recorded
from pipeline.own_fakes.settings import FakeSettings
from pipeline.settings import Settings
from pipeline.splits.options import splitting_options
from pipeline.splits.protocols import Splitting
from pipeline.video.resize import Box
from pipeline.workers.local import DEFAULT_LIMITS, Limits, LocalPool
from pipeline.workers.ray_cluster import RayPool, Request, node_check

DEFAULTS = Settings()
FACE_DEFAULTS = FaceCrop()
DEFAULT_MEMORY = DEFAULT_LIMITS.n_bytes // 10**6  # MB
GPU_SHARE = 0.25  # reserved for a video's flow: decoding takes most of the time


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Parse ``224`` or ``320x240``: width and height in pixels."""
    width, _, height = value.lower().partition("x")
    try:
        return int(width), int(height or width)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither PIXELS nor WIDTHxHEIGHT") from None


def parse_crop(
    context: click.Context, parameter: click.Parameter, value: str
) -> Box | FaceCrop | None:
    """Parse ``none``, ``x,y,w,h`` in pixels, ``face`` or ``face+MARGIN``."""
    if value == "none":
        return None
    name, plus, margin = value.partition("+")
    try:
        if name == "face":
            crop = FaceCrop(margin=float(margin)) if plus else FaceCrop()
            if not 0 <= crop.margin <= 10:
                raise ValueError
            return crop
        x, y, w, h = map(int, value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither none nor x,y,w,h nor face nor face+MARGIN, as face+0.8"
        ) from None
    return x, y, w, h


def parse_request(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> dict[str, float]:
    """Parse some of ``cpu=1,memory=1000,gpu=0.25`` as arguments of `Request`."""
    try:
        request = {
            name: float(n)
            for name, n in (part.split("=") for part in (value or "").split(",") if part)
        }
        Request(**request)
    except (ValueError, TypeError, SettingsError):
        raise click.BadParameter(
            f"{value!r} is not some of cpu=CORES,memory=MB,gpu=SHARE, with cpu from 0.01 and "
            "gpu from 0 to 1"
        ) from None
    return request


@cloup.command(cls=Command)
@cloup.argument(
    "videos",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    help="Folders of DFD, FaceForensics++, Celeb-DF or DFDC; folders (or their parents) named "
    "*REAL*, *original*, *FAKE* or *manipulated*; CSV files path,label[,identity][,split].",
)
@which_videos_options
@cloup.option_group(
    "Fakes of one's own",
    cloup.option(
        "--own-fakes",
        metavar="K",
        type=click.IntRange(1, 99),
        help="Extract K fakes made of each real video, and it itself encoded like them, as "
        "data.fakes makes them; the videos are removed in the end.",
    ),
)
@cloup.option_group(
    "Output",
    cloup.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="Folder to write the cache to.",
    ),
    cloup.option(
        "--dry-run",
        is_flag=True,
        help="Write nothing; print the videos, their splits, and the estimated time and space.",
    ),
    cloup.option(
        "--shard-size",
        metavar="N",
        type=click.IntRange(1),
        help="Videos per file of the cache.  [default: 1; from 2,000 videos on, as many as give "
        "about 1,000 files, 64 at most]",
    ),
    max_rejects_option,
)
@cloup.option_group(
    "Processes and limits",
    cloup.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(1),
        help="Number of processes; with --ray, maximum number of videos at once on all nodes.  "
        "[default: one per core; with --ray as many as fit on the nodes]",
    ),
    cloup.option(
        "--ray",
        metavar="ADDRESS",
        help="Run on a Ray cluster with shared storage: HOST:PORT, or auto for this machine's.",
    ),
    cloup.option(
        "--ray-request",
        metavar="REQUEST",
        callback=parse_request,
        help="Resources that a video reserves on a node, memory in MB: "
        "cpu=1,memory=1000,gpu=0.25.  [default: cpu=1, and gpu=0.25 if flow is computed on GPUs]",
    ),
    cloup.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(1),
        help="Reject a video that takes longer.  [default: two minutes or more, depending on its "
        "length and size]",
    ),
    cloup.option(
        "--memory",
        metavar="MB",
        type=click.IntRange(500),
        default=DEFAULT_MEMORY,
        help="Reject a video whose process needs more memory than this.",
    ),
    log_json_option,
)
@cloup.option_group(
    "Which frames",
    cloup.option(
        "--frames",
        metavar="N",
        type=click.IntRange(2),
        help="Frames per clip; shorter videos are rejected.  [default: as many as the shortest "
        "sound video has]",
    ),
    cloup.option(
        "--min-frames",
        metavar="N",
        type=click.IntRange(2),
        default=DEFAULTS.min_frames,
        help="Without --frames: reject videos with fewer, so that they do not shorten the others.",
    ),
    cloup.option(
        "--fps",
        metavar="RATE",
        default="native",
        callback=number_or("native", "a rate", below=1000),
        help="Frames to sample per second, by timestamps; slower videos are rejected. native "
        "keeps every frame.",
    ),
    cloup.option(
        "--stride",
        metavar="N",
        type=click.IntRange(1),
        default=1,
        help="Keep every N-th frame.",
    ),
    cloup.option(
        "--clips",
        metavar="N",
        type=click.IntRange(1),
        default=1,
        help="Cut up to this many consecutive clips from each video.",
    ),
)
@cloup.option_group(
    "Which part of the picture",
    cloup.option(
        "--size",
        metavar="WxH",
        default="224x224",
        callback=parse_size,
        help="Size of frames and flow maps.",
    ),
    cloup.option(
        "--crop",
        metavar="WHAT",
        default="none",
        callback=parse_crop,
        help="x,y,w,h in pixels; none: cut to the aspect of --size around the centre; face or "
        "face+MARGIN: one box per clip around all places of its face. MARGIN is in sizes of the "
        f"face ({FACE_DEFAULTS.margin:g} keeps its edge, 0.8 hair and neck).",
    ),
    cloup.option(
        "--stabilise",
        is_flag=True,
        help="Subtract the camera's motion, estimated from the background, from the flow maps.",
    ),
)
@cloup.option_group(
    "Faces, with --crop face",
    cloup.option(
        "--face-detector",
        metavar="NAME|PATH",
        default="auto",
        help="yunet, haar, or the PATH of YuNet's file. auto: yunet if it is here or can be "
        "downloaded, else OpenCV's haar cascade, which misses more faces.",
    ),
    cloup.option(
        "--no-face",
        type=click.Choice(get_args(NoFace)),
        default=FACE_DEFAULTS.no_face,
        help="Reject a clip without a face, or keep its whole picture.",
    ),
    cloup.option(
        "--several-faces",
        type=click.Choice(get_args(SeveralFaces)),
        default=FACE_DEFAULTS.several,
        help="With several faces: follow the largest, or reject the clip.",
    ),
    cloup.option(
        "--face-share",
        metavar="SHARE",
        type=click.FloatRange(0, 1),
        default=FACE_DEFAULTS.share,
        help="Reject a clip whose face is found in a smaller share of the searched frames.",
    ),
)
@cloup.option_group(
    "What is stored",
    cloup.option(
        "--flow-backend",
        type=click.Choice(farneback.BACKENDS),
        default="auto",
        help="Implementation of Farneback's flow.",
    ),
    cloup.option(
        "--no-frames",
        is_flag=True,
        help="Store flow maps only, from which nothing can be recomputed.",
    ),
    cloup.option(
        "--compression",
        type=click.Choice(["gzip", "none"]),
        default=DEFAULTS.compression,
        help="gzip can be read by every HDF5 tool and costs about a millisecond per frame.",
    ),
)
@splitting_options
def main(
    videos: tuple[Path, ...],
    layout: str,
    follow_links: bool,
    own_fakes: int | None,
    output: Path | None,
    jobs: int | None,
    ray: str | None,
    ray_request: dict[str, float],
    timeout: float | None,
    memory: int,
    max_rejects: int | None,
    size: tuple[int, int],
    crop: Box | FaceCrop | None,
    face_detector: str,
    no_face: NoFace,
    several_faces: SeveralFaces,
    face_share: float,
    no_frames: bool,
    flow_backend: farneback.Backend | Literal["auto"],
    splitting: Splitting,
    dry_run: bool,
    **settings: object,
) -> None:
    """Extract folders of real and fake videos into a cache of frames and flow maps.

    Every file is probed; OUTPUT/rejected.csv lists the broken ones with the reason. All others are
    cut to one length, and their frames and Farneback flow maps are written to HDF5. If interrupted,
    run the same command again to resume.

    \b
    Examples:
      python -m pipeline.extract data/DFD_REAL data/DFD_FAKE -o caches/dfd
      python -m pipeline.extract data/DFD_REAL --own-fakes 2 -o caches/own
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output'.")
    if own_fakes and dry_run:
        raise click.UsageError("--dry-run cannot tell what --own-fakes makes: use data.fakes first")
    chosen = Settings(
        width=size[0],
        height=size[1],
        crop=crop,
        keep_frames=not no_frames,
        splitting=splitting,
        seed=splitting.seed,
        **settings,  # type: ignore[arg-type]
    )
    corpus = read_corpus(videos, layout, follow_links=follow_links)
    if not own_fakes and not any(video.label for video in corpus):
        click.echo(
            "note: there is no fake video: model.fit can then only learn what is usual among real "
            "ones",
            err=True,
        )
    # After all checks of arguments: it may download a model, or compile kernels.
    if isinstance(crop, FaceCrop):
        model = find_model(face_detector)
        crop = FaceCrop(
            crop.margin, model.detector, model.sha256, no_face, several_faces, face_share
        )
    if not ray or flow_backend == "auto":  # another one need only be on the nodes
        flow_backend = farneback.resolve(flow_backend)
    chosen = dataclasses.replace(chosen, crop=crop, flow_backend=flow_backend)
    make = None
    if own_fakes:
        fakes = FakeSettings(per_video=own_fakes, seed=splitting.seed)
        yunet = find_model("yunet" if face_detector in ("auto", "haar") else face_detector)
        chosen = dataclasses.replace(chosen, own_fakes=recorded(fakes, yunet.sha256))
        make = functools.partial(make_for_cache, settings=fakes, model=yunet.content)
    limits = Limits(timeout, memory * 10**6)
    pool: LocalPool | RayPool = LocalPool(jobs, limits)
    if ray:
        paths = [*videos, *(video.path for video in corpus[:1])]
        check = node_check(paths, None if dry_run else output, chosen.flow_backend)
        request = Request(**{"gpu": GPU_SHARE if "cuda" in flow_backend else 0.0} | ray_request)
        pool = RayPool(ray, limits, request=request, jobs=jobs, check=check)
    if output is None or dry_run:
        with pool:
            click.echo(estimate_extraction(corpus, chosen, pool))
        return
    existing = readable_cache(output, "extract")
    was_finished = existing is not None and not existing.missing()
    with pool:
        cache = extract(corpus, output, chosen, pool, make)
    if was_finished:
        click.echo(f"{output} was finished before; remove it to extract these videos anew")
    click.echo(summary(cache))
    n_rejected = len(cache.rejected())
    if max_rejects is not None and n_rejected > max_rejects:
        raise TooManyRejects(
            f"{n_rejected} files were rejected, --max-rejects allows {max_rejects}",
            f"{output / 'rejected.csv'} says why",
        )


def summary(cache: Cache) -> str:
    """Summarise a cache in a few lines."""
    settings = cache.settings
    lines = [
        f"{cache.folder}: {len(cache.clips)} clips of {cache.attrs['frames']} frames at "
        f"{settings['width']}x{settings['height']}, flow by {cache.attrs['flow_backend']}"
    ]
    splits = [clip.split for clip in cache.clips]
    lines += split_lines(cache.clips, splits, settings["splitting"])
    lines += [f"  note: {caveat}" for caveat in caveats(cache.clips, settings)]
    if reasons := tally(row["reason"] for row in cache.rejected()):
        lines.append(f"  rejected: {reasons} (see {cache.folder / 'rejected.csv'})")
    lines.append(f"  all of this, and more: {cache.folder / DATACARD}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
