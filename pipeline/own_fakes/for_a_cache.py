"""Own fakes that are made for one cache only: real videos in, videos to extract out."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus.labelled_video import REAL, Video
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.extract_corpus import MadeVideos
from pipeline.own_fakes.corpus import MAKING_VERSION, make_fakes
from pipeline.own_fakes.settings import FakeSettings
from pipeline.workers.local import Pool


def recorded(settings: FakeSettings, model_sha256: str) -> dict[str, Any]:
    """Return what decides the fakes of a video, for the settings of a cache."""
    made_with = {"version": MAKING_VERSION, "model_sha256": model_sha256}
    return dataclasses.asdict(settings) | made_with


def make_for_cache(
    videos: Sequence[Video], folder: Path, pool: Pool, *, settings: FakeSettings, model: bytes
) -> MadeVideos:
    """Make own fakes of the real videos of a corpus.

    Returns:
        The real ones encoded again and fakes of them; and if there are other fakes in the corpus,
        these and their real videos as they are.

    Raises:
        NothingUsable: fakes can be made of none.
    """
    real = [video for video in videos if video.label == REAL]
    made = make_fakes(real, folder, settings, model, pool)
    kept = list(videos) if len(real) < len(videos) else []
    made_from = {
        str(folder / member.path): path
        for path, members in made.families.items()
        for member in members
    }
    together = [*kept, *read_corpus([made.list])]
    together.sort(key=lambda video: os.fsencode(video.path))
    known = {str(video.path) for video in kept}
    rejected = {path: why for path, why in made.rejected.items() if path not in known}
    return MadeVideos(together, made_from, rejected)
