"""A family, in a process of the pool: a real video encoded again, and fakes of it.

All members have the same settings of the encoder, drawn once, and are padded to the same number of
bytes, so that nothing but their pictures tells them apart.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.common.errors import Rejected
from pipeline.common.files import stamp_of, whole_file, write_whole
from pipeline.extraction.time_limits import BASE_SECONDS, seconds_to_decode
from pipeline.own_fakes.changes import Change, Mask, Renderer
from pipeline.own_fakes.clip import Clip, Picture, face_clip, whole_clip
from pipeline.own_fakes.kinds import FIRST, ON_A_FACE, draw_mixture, swap, whole
from pipeline.own_fakes.landmarks import follow_face
from pipeline.own_fakes.masks import draw_mask
from pipeline.own_fakes.settings import FakeSettings
from pipeline.video.decode import converting, sampled
from pipeline.video.encode import write_h264
from pipeline.video.probe import Probe
from pipeline.video.resize import shrunk

MIN_FRAMES = 16  # as extraction asks for
MAX_BYTES = 10**9  # of a clip's frames in memory; a larger one ends earlier
MAX_DONOR_SECONDS = 6.0
WORK_FACTOR = 20  # times the limit for decoding: following, drawing and encoding all members
CRFS = (17, 29)  # quality of x264, best to worst
KEYFRAME_INTERVALS = (12, 25, 50, 100, 250)  # frames
PRESET = "superfast"
FREE_BOX_HEADER = 8  # bytes
REAL_FOLDER, FAKE_FOLDER, MASK_FOLDER = "real", "fake", "masks"
RECIPES = "recipes"  # a file per family, written last

Rng = np.random.Generator


@dataclass(frozen=True)
class Member:
    """A finished file of a family."""

    path: str  # relative to the corpus
    kinds: tuple[str, ...]  # () if real
    mask: str  # "" if real
    donor: str  # id of the video whose face was taken, or ""
    stamp: list[int]  # see `pipeline.common.files.stamp_of`


@dataclass(frozen=True)
class Family:
    """A real video and fakes to make of it."""

    path: str
    video: Probe
    out: str  # folder of the corpus
    settings: FakeSettings
    donor: tuple[str, Probe] | None  # path of another person's video
    recipe: str  # digest of everything that decides the bytes
    model: bytes = field(default=b"", repr=False)  # YuNet's file

    @property
    def id(self) -> str:
        """Id of the real video; its content decides."""
        return self.video.sha256[:16]

    @property
    def time_limit(self) -> float:
        """Time limit in seconds."""
        return BASE_SECONDS + WORK_FACTOR * sum(
            seconds_to_decode(video, round(self.settings.seconds * video.fps))
            for video in (self.video, *([self.donor[1]] if self.donor else []))
        )

    def rng(self, *words: object) -> Rng:
        """Return the generator for a purpose; seed and content decide, not path or order."""
        text = json.dumps([self.settings.seed, self.video.sha256, *map(str, words)])
        return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))


def finished(family: Family) -> list[Member] | Rejected | None:
    """Return the members if they were all made before, or why they could not be made."""
    out = Path(family.out)
    try:
        recipe = json.loads((out / RECIPES / f"{family.id}.json").read_text())
    except (OSError, ValueError):
        return None
    if recipe["recipe"] != family.recipe:
        return None
    if "rejected" in recipe:
        return Rejected(*recipe["rejected"])
    members = [Member(**m | {"kinds": tuple(m["kinds"])}) for m in recipe["members"]]
    whole = all(
        stamp_of(out / m.path) == m.stamp and (not m.mask or (out / m.mask).is_file())
        for m in members
    )
    return members if whole else None


def remember(family: Family, **result: object) -> None:
    """Note the result of a family for runs that follow."""
    text = json.dumps({"recipe": family.recipe} | result, indent=1)
    write_whole(Path(family.out, RECIPES, f"{family.id}.json"), lambda path: path.write_text(text))


def make_family(family: Family) -> list[Member]:
    """Write all members of a family, or none.

    Raises:
        Rejected: the video cannot be decoded, or has no usable face.
    """
    maker = _Maker(family)
    out = Path(family.out)
    rng = family.rng("encoding")
    crf, interval = int(rng.integers(CRFS[0], CRFS[1] + 1)), int(rng.choice(KEYFRAME_INTERVALS))
    names = [f"{REAL_FOLDER}/{family.id}.mp4"]
    names += [f"{FAKE_FOLDER}/{family.id}-{n}.mp4" for n in range(family.settings.per_video)]
    masks = [f"{MASK_FOLDER}/{Path(name).stem}.mkv" for name in names[1:]]
    kinds: list[tuple[str, ...]] = [()]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(whole_file(out / name)) for name in names]
        mask_files = [stack.enter_context(whole_file(out / name)) for name in masks]

        def encode(path: Path, pictures: Iterable[Picture]) -> None:
            write_h264(
                path, enumerate(pictures), maker.rate, preset=PRESET, crf=crf,
                x264=[f"keyint={interval}"],
            )  # fmt: skip

        encode(files[0], maker.frames)
        for n, (file, mask_file) in enumerate(zip(files[1:], mask_files, strict=True)):
            chosen, renderer = maker.fake(n)
            kinds.append(chosen)
            with _mask_writer(mask_file, maker.rate) as write_mask:
                encode(file, _recorded(renderer.frames(), write_mask))
        n_bytes = max(file.stat().st_size for file in files) + FREE_BOX_HEADER
        for file in files:
            _pad(file, n_bytes)
    members = [
        Member(name, chosen, mask, maker.donor_id if "swap" in chosen else "", stamp_of(out / name))
        for name, chosen, mask in zip(names, kinds, ["", *masks], strict=True)
    ]
    remember(family, members=[vars(member) for member in members])
    return members


class _Maker:
    """Decoded frames and faces of a family."""

    def __init__(self, family: Family) -> None:
        self._family = family
        settings = family.settings
        self.rate = family.video.fps
        self.frames = _decoded(family.path, family.video, settings, settings.seconds)
        if len(self.frames) < MIN_FRAMES:
            raise Rejected("too short", f"{len(self.frames)} frames, {MIN_FRAMES} are needed")
        self._face: Clip | None = None
        if settings.needs_faces:
            face = follow_face(self.frames, self.rate, family.model)
            self._face = face_clip(self.frames, self.rate, face)
        self._donor: Clip | None = None
        self._may_swap = family.donor is not None
        self.donor_id = family.donor[1].sha256[:16] if family.donor else ""

    def fake(self, n: int) -> tuple[tuple[str, ...], Renderer]:
        """Draw the n-th fake."""
        kinds = self._mixture(n)
        clip = whole_clip(self.frames, self.rate) if kinds == ("whole",) else self._face
        assert clip is not None
        change, strength = Change(), self._family.settings.strength
        for kind in kinds:
            rng = self._family.rng(n, kind)
            donor = self._donor_clip() if kind == "swap" else None
            if donor is not None:
                change = swap(change, clip, rng, strength, donor)
            elif kind == "whole":
                change = whole(change, clip, rng, strength)
            else:
                change = ON_A_FACE[kind](change, clip, rng, strength)
        mask = draw_mask(change.region, clip.template, self._family.rng(n, "mask"))
        return kinds, Renderer(clip, change, mask)

    def _mixture(self, n: int) -> tuple[str, ...]:
        """Draw the kinds of the n-th fake."""
        able = tuple(
            kind for kind in self._family.settings.kinds if kind != "swap" or self._may_swap
        )
        if not able:
            raise Rejected("nobody to swap with", "another person's video with a face is needed")
        rng = self._family.rng(n, "mixture")
        weights = np.array([FIRST.get(kind, 1.0) for kind in able])
        mixture = draw_mixture(str(rng.choice(able, p=weights / weights.sum())), able, rng)
        if "swap" in mixture and self._donor_clip() is None:
            self._may_swap = False
            return self._mixture(n)
        return mixture

    def _donor_clip(self) -> Clip | None:
        """Return the other person's clip, or None if it cannot be used."""
        if self._donor is None and self._family.donor is not None:
            path, video = self._family.donor
            with contextlib.suppress(Rejected):
                frames = _decoded(path, video, self._family.settings, MAX_DONOR_SECONDS)
                face = follow_face(frames, video.fps, self._family.model)
                self._donor = face_clip(frames, video.fps, face)
        return self._donor


def _decoded(path: str, video: Probe, settings: FakeSettings, seconds: float) -> list[Picture]:
    """Decode the start of a video, in even sizes."""
    frames = []
    with sampled(Path(path), video.fps) as (upright, decoded):
        displayed = round(upright.width * upright.pixel_aspect)
        width, height = shrunk(displayed, upright.height, settings.longest_side)
        width, height = max(2, width // 2 * 2), max(2, height // 2 * 2)
        n = max(MIN_FRAMES, min(round(seconds * video.fps), MAX_BYTES // (3 * width * height)))
        with converting():
            scale = upright.scaler(upright.whole, width, height)
        for _, frame in itertools.islice(decoded, n):
            with converting():
                frames.append(scale(frame).copy())
    return frames


@contextlib.contextmanager
def _mask_writer(path: Path, rate: float) -> Iterator[Callable[[Mask], None]]:
    """Write masks as a video of FFV1, which is lossless."""
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(rate).limit_denominator(1001))

        def write(mask: Mask) -> None:
            if not stream.codec_context.is_open:
                stream.height, stream.width = mask.shape
                stream.pix_fmt = "gray"
                stream.codec_context.thread_count = 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(mask, format="gray")))

        yield write
        container.mux(stream.encode())


def _recorded(
    frames: Iterable[tuple[Picture, Mask]], write_mask: Callable[[Mask], None]
) -> Iterator[Picture]:
    """Pass the pictures on, and record where anything of them may have changed."""
    for picture, mask in frames:
        write_mask(np.where(mask > 0, np.uint8(255), np.uint8(0)))
        yield picture


def _pad(path: Path, n_bytes: int) -> None:
    """Make an MP4 file longer by a box that players skip (ISO 14496-12, 8.1.2)."""
    missing = n_bytes - path.stat().st_size
    with path.open("ab") as file:
        file.write(missing.to_bytes(4, "big") + b"free" + bytes(missing - FREE_BOX_HEADER))
