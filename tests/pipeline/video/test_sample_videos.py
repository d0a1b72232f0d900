"""Real clips, sound and odd, go through as one corpus: each is used or rejected with a reason."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus.reading import read_corpus
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(sample_videos, tmp_path_factory, in_process):
    """A cache of clips; every second one is called fake, so that there are two labels."""
    folder = tmp_path_factory.mktemp("samples")
    people = sorted((sample_videos / "people").iterdir())
    files = [*people[::4], people[-2], *sorted((sample_videos / "odd").iterdir())]
    rows = [f"{path},{'fake' if n % 2 else 'real'}" for n, path in enumerate(files)]
    (folder / "clips.csv").write_text("\n".join(["path,label", *rows]))
    corpus = read_corpus([folder / "clips.csv"])
    return files, extract(corpus, folder / "cache", Settings(64, 64), in_process)


def test_every_clip_is_used_or_rejected(clips):
    files, cache = clips
    used = set(cache.names().values())
    rejected = {row["path"] for row in cache.rejected()}
    assert used | rejected == {str(path) for path in files}
    assert not used & rejected


def test_the_reasons_are_right(clips):
    _, cache = clips
    assert {Path(row["path"]).name: row["reason"] for row in cache.rejected()} == {
        "h265_video.mp4": "too short",  # 10 frames
        "nasa_13013.mp4.audio.mp3": "not a video",
        "unordered.mov": "too short",
        "video_90.mov": "too short",
        "video_180.mov": "too short",
        "video_270.mov": "too short",
    }


def test_the_shortest_sound_clip_sets_the_length(clips):
    _, cache = clips
    assert cache.attrs["frames"] == 23  # a GIF
    corrupted = [p for p in cache.names().values() if p.endswith("corrupted.mp4")]
    assert len(corrupted) == 1  # it has 28 sound frames of the 50 it promises


def test_people_move(clips):
    _, cache = clips
    for clip in cache.clips:
        range_ = cache.read(clip, "flow_range")
        assert np.isfinite(range_).all() and (range_[:, 0] <= range_[:, 1]).all()
        if "asl_" in cache.names()[clip.video]:
            assert range_[:, 1].max() > 1
