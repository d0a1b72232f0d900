"""What the tests of extraction share: one clip of one video, and pictures with a face."""

import io
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from data.heads import cast_actor, render
from pipeline.cache import ShardWriter
from pipeline.clips import extract_clips
from pipeline.faces import FaceCrop, find_model
from pipeline.scaling import Geometry

LOSSLESS = {"codec": "ffv1", "pix_fmt": "yuv444p"}


def one_clip(path, n_frames, *, geometry=None, backend="cpu", **options):
    """Extract the first clip of a video: what is known of it, and its arrays."""
    file = io.BytesIO()
    with ShardWriter(file) as shard:
        facts = extract_clips(
            Path(path),
            shard,
            "clip",
            geometry or Geometry(),
            rate=25,
            n_frames=n_frames,
            backend=backend,
            **options,
        )
    with h5py.File(file) as stored:
        return facts["clip"], {key: dataset[:] for key, dataset in stored["clip"].items()}


def magnitudes(arrays):
    """Flow magnitudes in pixels, (T-1, H, W) float, from a clip's maps and ranges."""
    low, high = arrays["flow_range"][:, :, None, None].transpose(1, 0, 2, 3)
    return low + arrays["flow"] / 255 * (high - low)


def grainy(height, width, seed):
    """A background with texture of all sizes, (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    layers = sum(size * cv2.GaussianBlur(noise, (0, 0), size) for size in (2, 4, 12))
    return cv2.normalize(layers, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture(scope="session")
def haar():
    """A crop about a face by OpenCV's cascade, and the cascade's file."""
    model = find_model("haar")
    return {
        "faces": FaceCrop(detector="haar", detector_sha256=model.sha256),
        "model": model.content,
    }


@pytest.fixture(scope="session")
def actor():
    """A stylised person whose face the cascade finds, 640x480, with grain as a camera has it."""
    frames, boxes = render(cast_actor(6), n_frames=2, seed=6, size=(640, 480))
    grain = np.random.default_rng(0).normal(0, 3, frames[0].shape)
    return np.clip(frames[0] + grain, 0, 255).astype(np.uint8), boxes[0]
