"""Speed of embedding: ``python -m benchmarks.embed FOLDER [NAME=WEIGHTS...]``.

Embeds the flow maps of the videos of a folder, one clip at a time on all cores, with the motion
descriptors, in turn with a plain loop over torchvision's own model: float32, batches of 32,
PyTorch's default memory format. Prints medians, the lowest cosine similarity of embeddings, the
time for reading the cache, and what trajectories add to embedding in float32. WEIGHTS are
``random:0`` or the path of a state dict.
"""

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from features.architectures import architecture
from features.backbones import load_backbone
from features.embedding import checked_on, embed_clip, scaled_maps
from features.settings import Options
from features.weights import load_model
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings

DEFAULTS = ("resnet18", "efficientnet_b0", "mobilenet_v2", "r3d_18")
FRAMES = 65
ROUNDS = 5
BATCH = 32
FLOW = Options(streams=("flow",))
KEYS = ("flow", "flow_range", "timestamps", "camera")


def main():
    folder, *networks = sys.argv[1:]
    paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as temporary:
        videos = [Video(path, n % 2) for n, path in enumerate(paths)]
        settings = Settings(flow_backend="cpu", frames=FRAMES)
        cache = extract(videos, Path(temporary) / "cache", settings)
        for network in networks or DEFAULTS:
            name, _, weights = network.partition("=")
            compare(cache, name, weights or "random:0")


def compare(cache, name, weights):
    kind = architecture(name)
    plain = Plain(kind, load_model(kind, weights)[0])
    clips = cache.clips[:ROUNDS]
    backbone = load_backbone(name, weights, "cpu", "auto", depths=())
    backbone = checked_on(backbone, cache, FLOW)
    tracking = load_backbone(name, weights, "cpu")
    exact = dataclasses.replace(tracking, depths=())
    plain_seconds, our_seconds, read_seconds, similarities, added = [], [], [], [], []
    for clip in [clips[0], *clips]:  # the first warms up
        begin = time.perf_counter()
        arrays = {key: cache.read(clip, key) for key in KEYS}
        read_seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        maps = scaled_maps(arrays["flow"], arrays["flow_range"], FLOW.flow_scale)
        expected = plain(maps, backbone.rows(FRAMES - 1))
        plain_seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        embeddings = embed_clip(arrays, backbone, FLOW)["flow"].astype(np.float32)
        our_seconds.append(time.perf_counter() - begin)
        seconds = []
        for network in (exact, tracking):
            begin = time.perf_counter()
            embed_clip(arrays, network, FLOW)
            seconds.append(time.perf_counter() - begin)
        added.append(seconds[1] / seconds[0] - 1)
        lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1)
        similarities.append(((embeddings * expected).sum(1) / lengths).min())
    ours, theirs, reading = (
        np.array(seconds[1:]) for seconds in (our_seconds, plain_seconds, read_seconds)
    )
    n = len(embeddings)
    print(
        f"{name}, {backbone.precision}: {np.median(ours) / n * 1e3:.1f} ms "
        f"{'a map' if kind.window == 1 else 'a window'}, plain {np.median(theirs) / n * 1e3:.1f}, "
        f"ratio {np.median(theirs / ours):.2f}; cosine similarity {min(similarities):.5f} or more; "
        f"reading {np.median(reading / ours):.1%} of the time; "
        f"trajectories add {np.median(added[1:]):.0%} to float32",
        flush=True,
    )


class Plain:
    """A plain loop over torchvision's model; a hook records the input of its classifier."""

    def __init__(self, kind, model):
        self.kind = kind
        self.mean = torch.tensor(kind.mean).view(3, 1, 1)
        self.std = torch.tensor(kind.std).view(3, 1, 1)
        features = self.features = []
        classes = len(kind.preset.meta["categories"])
        sizes = ("out_features", "out_channels")
        last = [m for m in model.modules() if classes in [getattr(m, s, 0) for s in sizes]][-1]
        last.register_forward_pre_hook(lambda module, args: features.append(args[0]))
        self.model = model

    @torch.no_grad()
    def __call__(self, maps, rows):
        """Return the features of maps (n, H, W), or of windows."""
        self.features.clear()
        images = torch.from_numpy(maps)[:, None].repeat(1, 3, 1, 1).float() / 255
        images = (images - self.mean) / self.std
        if self.kind.window == 1:
            for start in range(0, len(images), BATCH):
                self.model(images[start : start + BATCH])
        else:
            size = self.kind.trained_at
            small = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
            for first, last in rows.tolist():
                self.model(small[first : last + 1].transpose(0, 1)[None])
        features = torch.cat(self.features)
        return features.flatten(2).mean(2).numpy() if features.ndim > 2 else features.numpy()


if __name__ == "__main__":
    main()
