"""A sanity check on real footage: what pretrained features of frames tell, and what not."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from features.backbones import load_backbone
from features.embedding import embed
from features.settings import Options
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings

pytestmark = pytest.mark.slow

WHO = {
    "again": "A", "brother": "A", "help": "A", "bird": "B", "milk": "B", "book": "C", "learn": "C",
    "eat": "D", "night": "D", "hungry": "E",
}  # fmt: skip


def test_the_same_person_is_closer_than_another_one(sample_models, in_process, tmp_path):
    """ImageNet features of frames know who is who, though nobody told them."""
    folder = os.environ.get("SAMPLE_VIDEOS")
    if not folder:
        pytest.skip("needs real clips: set SAMPLE_VIDEOS to the folder that holds them")
    videos = [
        Video(Path(folder) / "people" / f"asl_{word}.mkv", n % 2) for n, word in enumerate(WHO)
    ]
    settings = Settings(frames=17, flow_backend="opencv")
    clips = extract(videos, tmp_path / "clips", settings, in_process)
    weights = str(sample_models / "mobilenet_v2_imagenet.pth")
    backbone = load_backbone("mobilenet_v2", weights, "cpu", "float32")
    options = Options(streams=("frames",), every=8)
    cache = embed(clips, tmp_path / "embedded", backbone, options)
    names = clips.names()
    means = {}
    for clip in cache.clips:
        mean = cache.read(clip, "frames").astype(np.float64).mean(0)
        word = Path(names[clip.video]).stem.removeprefix("asl_")
        means[word] = mean / np.linalg.norm(mean)
    same, other = [], []
    for a, b in itertools.combinations(WHO, 2):
        (same if WHO[a] == WHO[b] else other).append(float(means[a] @ means[b]))
    print(f"cosine similarity: same person {np.mean(same):.3f}, others {np.mean(other):.3f}")
    assert np.mean(same) > np.mean(other) + 0.03
    pairs = [(s > o) for s in same for o in other]
    assert np.mean(pairs) > 0.9
