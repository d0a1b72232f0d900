"""Demo corpus of stylised talking heads, half of them face swaps.

A fake has the frame rate, length and constant bit rate of the real video it is made from, so only
the frames tell real from fake. Names and actors follow DeepFakeDetection: `<actor>__<scene>.mp4` is
real, `<target>_<source>__<scene>__<id>.mp4` shows the target with the source's face.
"""

import json
import string
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import cloup
import numpy as np

from data.heads import SIZE, render
from data.looks import Array, cast_actor
from pipeline.common.cli import Command
from pipeline.common.errors import Rejected, SettingsError
from pipeline.common.files import whole_file
from pipeline.common.progress import Progress
from pipeline.video.encode import write_h264
from pipeline.workers.local import LocalPool

SCENES = (
    "answering_door_smiling", "desk_call_quiet", "hallway_chat_laughing", "kitchen_talk_angry",
    "leaving_office_waving", "podium_speech_serious", "reading_letter_aloud", "sofa_story_disgust",
    "standing_window_pensive", "street_greeting_happy", "talking_at_shelf", "waiting_room_still",
)  # fmt: skip
PAIRS, SINGLES = 6, 4  # groups of actors without a video in common
LENGTHS = (48, 96)  # frames
FPS = (24, 25, 30)
BITS_PER_PIXEL = (0.15, 0.22)  # at 25 frames/s

REAL, FAKE = "DFD_REAL", "DFD_FAKE"
README = """\
Stylised talking heads made by `python -m data.demo`, free to use for anything.
DFD_REAL/<actor>__<scene>.mp4                   real
DFD_FAKE/<target>_<source>__<scene>__<id>.mp4   the target, with the source's face
new/                                            two videos of actors who are nowhere else
truth.json                                      for each fake, the box of the face in every frame
"""


@dataclass(frozen=True)
class Video:
    """One planned video."""

    path: str  # relative to the corpus
    target: int
    source: int | None  # actor whose face replaces the target's, None if real
    n_frames: int
    fps: int
    size: tuple[int, int]  # width, height
    bit_rate: int
    seed: tuple[int, ...]


def write_video(path: Path, frames: Array, fps: int, *, bit_rate: int = 800_000) -> None:
    """Encode frames, (T, H, W, 3) uint8 RGB, as H.264 at a constant bit rate, with padding."""
    kilobits = bit_rate // 1000
    rate = f"nal-hrd=cbr:bitrate={kilobits}:vbv-maxrate={kilobits}:vbv-bufsize={kilobits // 2}"
    with whole_file(path) as part:
        write_h264(part, enumerate(frames), fps, preset="superfast", x264=["threads=1", rate])


def plan_corpus(
    seed: int = 0, size: tuple[int, int] = SIZE, lengths: tuple[int, int] = LENGTHS
) -> list[Video]:
    """Plan a corpus: 16 real and 16 fake videos, and one of each in `new`.

    Each group of actors has as many real as fake videos, and no video links two groups, so metadata
    tell nothing in any split. The videos in `new` have the greatest length.
    """
    if min(size) < 64 or size[0] % 2 or size[1] % 2:
        raise SettingsError(f"size {size[0]}x{size[1]}", "give two even numbers, 64 or more")
    if not 1 < lengths[0] <= lengths[1]:
        raise SettingsError(f"lengths {lengths}", "give two numbers, 2 or more, in rising order")
    rng = np.random.default_rng([seed, 0])
    actors = iter((rng.permutation(28) + 1).tolist())
    links: list[tuple[str, int, int | None]] = []  # folder, target, source
    for _ in range(PAIRS):
        a, b = next(actors), next(actors)
        links += [(REAL, a, None), (REAL, b, None), (FAKE, a, b), (FAKE, b, a)]
    for _ in range(SINGLES):
        a, b = next(actors), next(actors)
        links += [(REAL, a, None), (FAKE, a, b)]
    links += [("new", next(actors), None), ("new", next(actors), next(actors))]

    videos = []
    formats: dict[int, tuple[int, int, int]] = {}  # target → frames, fps, bit rate
    for index, (folder, target, source) in enumerate(links):
        scene = rng.choice(SCENES)
        code = "".join(rng.choice(list(string.ascii_uppercase + string.digits), 8))
        if folder == "new":
            name = "unseen_real" if source is None else "unseen_fake"
        elif source is None:
            name = f"{target:02d}__{scene}"
        else:
            name = f"{target:02d}_{source:02d}__{scene}__{code}"
        n_frames = int(rng.integers(lengths[0], lengths[1] + 1))
        fps = int(rng.choice(FPS))
        bit_rate = int(rng.uniform(*BITS_PER_PIXEL) * size[0] * size[1] * 25)
        n_frames, fps, bit_rate = formats.setdefault(target, (n_frames, fps, bit_rate))
        videos.append(
            Video(
                path=f"{folder}/{name}.mp4",
                target=target,
                source=source,
                n_frames=lengths[1] if folder == "new" else n_frames,
                fps=fps,
                size=size,
                bit_rate=bit_rate,
                seed=(seed, 1, index),
            )
        )
    return videos


def render_video(video: Video, seed: int) -> tuple[Array, Array]:
    """Render a planned video, as `data.heads.render` returns it."""
    return render(
        cast_actor(video.target, seed),
        source=None if video.source is None else cast_actor(video.source, seed),
        n_frames=video.n_frames,
        fps=video.fps,
        size=video.size,
        seed=video.seed,
    )


def _make_video(video: Video, out: Path, seed: int) -> list[list[int]]:
    frames, boxes = render_video(video, seed)
    write_video(out / video.path, frames, video.fps, bit_rate=video.bit_rate)
    return boxes.tolist()


def make_demo(
    out: Path,
    *,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    lengths: tuple[int, int] = LENGTHS,
    jobs: int | None = None,
) -> list[Video]:
    """Generate the corpus; the same settings give the same bytes.

    Args:
        out: folder that receives `DFD_REAL/`, `DFD_FAKE/`, `new/`, `README.txt` and `truth.json`,
            which has the box of the manipulated face in every frame of each fake.
        seed: random seed of everything.
        size: width and height in pixels, even numbers.
        lengths: smallest and largest number of frames.
        jobs: number of processes, by default one per core.

    Raises:
        SettingsError: invalid settings, or `out` holds videos of another corpus.
    """
    videos = plan_corpus(seed, size, lengths)
    for folder in (REAL, FAKE, "new"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    others = {file.relative_to(out).as_posix() for file in out.glob("*/*.mp4")}
    others -= {video.path for video in videos}
    if others:
        raise SettingsError(
            f"{out} holds videos of another corpus ({min(others)})", "name a new folder"
        )
    make = partial(_make_video, out=out, seed=seed)
    boxes: dict[str, list[list[int]]] = {}
    with Progress("render", len(videos)) as progress:
        for video, result in LocalPool(jobs).run(make, videos):
            if isinstance(result, Rejected):
                raise RuntimeError(f"{video.path}: {result.reason} {result.detail}")
            boxes[video.path] = result
            progress.update(video.path)
    truth = {
        video.path: {"size": video.size, "fps": video.fps, "boxes_xywh": boxes[video.path]}
        for video in videos
        if video.source is not None
    }
    (out / "truth.json").write_text(json.dumps(truth) + "\n")
    (out / "README.txt").write_text(README)
    return videos


def _parse_size(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    try:
        width, height = map(int, value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not like 480x360") from None
    return width, height


@cloup.command(cls=Command)
@cloup.option(
    "-o", "--output", "out", type=click.Path(path_type=Path), default="demo", help="Folder."
)
@cloup.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Another seed, another corpus.",
)
@cloup.option("--size", metavar="WxH", callback=_parse_size, default="400x300", help="In pixels.")
@cloup.option(
    "--jobs", metavar="N", type=click.IntRange(min=1), help="Processes.  [default: one per core]"
)
def main(out: Path, seed: int, size: tuple[int, int], jobs: int | None) -> None:
    """Make a small corpus of stylised talking heads, 16 real and 16 with swapped faces.

    \b
    Example:
      python -m data.demo -o demo --seed 1
    """
    videos = make_demo(out, seed=seed, size=size, jobs=jobs)
    click.echo(f"{len(videos)} videos in {out}: {REAL}, {FAKE}, and new/ for two unseen actors")


if __name__ == "__main__":
    main()
