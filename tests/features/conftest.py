"""Small real videos, caches made from them, and weights that give embeddings worth comparing."""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import os
import sys
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner

from features.architectures import Architecture, architecture
from features.backbones import Backbone, load_backbone
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings
from pipeline.splits.protocols import Splitting

SIZE = 64
SMALL_ONES = ("resnet18", "mobilenet_v2")
FRAMES = 9


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny pictures: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _write_video(path: Path, *, seed: int, n_frames: int = 18, fps: int = 25) -> Path:
    """A textured patch wandering over a textured background, as H.264."""
    rng = np.random.default_rng(seed)
    background = np.kron(rng.integers(40, 160, (9, 12, 3)), np.ones((8, 8, 1)))
    patch = np.kron(rng.integers(90, 255, (6, 6, 3)), np.ones((4, 4, 1)))
    steps = rng.integers(-2, 3, (n_frames, 2)).cumsum(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = 72, 96, "yuv420p"
        for dx, dy in steps:
            picture = background.copy()
            x, y = np.clip(36 + dx, 0, 72), np.clip(24 + dy, 0, 48)
            picture[y : y + 24, x : x + 24] = patch
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video():
    return _write_video


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Three real and three fake videos of six people."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        Video(_write_video(folder / f"{n}.mp4", seed=n), label=n % 2, identities=(f"person:{n}",))
        for n in range(6)
    ]


def _extract(corpus, folder, pool, **settings):
    chosen = Settings(
        width=SIZE,
        height=SIZE,
        frames=FRAMES,
        splitting=Splitting(test=0.34, holdout=0),
        **settings,
    )
    return extract(corpus, folder, chosen, pool)


@pytest.fixture(scope="session")
def clips(corpus, in_process, tmp_path_factory):
    """A cache of frames and flow maps."""
    return _extract(corpus, tmp_path_factory.mktemp("clips") / "cache", in_process)


@pytest.fixture(scope="session")
def clips_without_frames(corpus, in_process, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow") / "cache"
    return _extract(corpus, folder, in_process, keep_frames=False)


def smaller(kind: Architecture) -> Architecture:
    """The network built for smaller pictures, of which it is done sooner, where that can be."""
    side = 64
    if kind.name.startswith("vit_"):
        side = 4 * int(kind.name.rpartition("_")[2])  # patches, which the name gives the size of
    elif kind.window > 1 and kind.name.endswith("_18"):
        side = 32
    elif not kind.name.startswith(("swin_t", "swin3d_", "mvit_", "maxvit_", "s3d")):
        return kind
    return dataclasses.replace(kind, size=(side, side), trained_at=(side, side))


@contextlib.contextmanager
def built_for_smaller():
    """torchvision builds MViT, MaxViT and S3D for 224x224 pictures only; in here for 64x64."""
    mvit, maxvit, s3d = (
        sys.modules[f"torchvision.models.{name}"] for name in ("video.mvit", "maxvit", "video.s3d")
    )
    build_mvit, build_maxvit = mvit._mvit, maxvit._maxvit

    class SmallS3D(s3d.S3D):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.avgpool.kernel_size = (2, 2, 2)

    with pytest.MonkeyPatch.context() as patch:
        size = (64, 64)
        patch.setattr(mvit, "_mvit", lambda **kw: build_mvit(**kw | {"spatial_size": size}))
        patch.setattr(
            maxvit,
            "_maxvit",
            lambda **kw: build_maxvit(**kw | {"input_size": size, "partition_size": 2}),
        )
        patch.setattr(s3d, "S3D", SmallS3D)
        yield


@pytest.fixture(autouse=True)
def _give_memory_back(request):
    """After large networks: a process that embeds keeps what it frees, as if for a next batch."""
    yield
    if request.node.get_closest_marker("slow"):
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)


@functools.lru_cache(6)
def load_small_backbone(name: str) -> Backbone:
    """A backbone with random weights for `smaller` pictures, in float32, once for all tests.

    `dataclasses.replace` gives it another precision.
    """
    with pytest.MonkeyPatch.context() as patch, built_for_smaller():
        patch.setattr("features.backbones.architecture", lambda name: smaller(architecture(name)))
        return load_backbone(name, "random:0", "cpu")


@pytest.fixture(scope="session")
def resnet18():
    return load_small_backbone("resnet18")


@pytest.fixture(scope="session")
def video_network():
    """A network that sees windows of 16, for small pictures."""
    return load_small_backbone("r3d_18")


def _lively_model(name: str) -> torch.nn.Module:
    """torchvision's model with random weights whose batch norms are set as training would.

    Without that the signal fades or grows from layer to layer, and hardly depends on the picture.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = torchvision.models.get_model(name, weights=None)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics of the one batch below
            if isinstance(module, torchvision.ops.StochasticDepth):
                module.p = 0.0
        model.train()(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="session", params=SMALL_ONES)
def named_weights(request, tmp_path_factory):
    """Each backbone's name, a model, and the file of its state dict."""
    model = _lively_model(request.param)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(model.state_dict(), path)
    return request.param, model, path


@pytest.fixture(scope="session")
def mobilenet_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(_lively_model("mobilenet_v2").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def mobilenet(mobilenet_weights):
    """A small backbone for everything where it does not matter which."""
    return load_backbone("mobilenet_v2", str(mobilenet_weights), "cpu")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty torch hub folder, and no way to download anything: the proxy's port is closed."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib remembers older proxies there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def run_command():
    """Run a command in this process: exit code, stdout and stderr."""
    return lambda command, *args: CliRunner().invoke(command, list(map(str, args)))


@pytest.fixture(scope="session")
def sample_models():
    folder = os.environ.get("SAMPLE_MODELS")
    if not folder:
        pytest.skip("SAMPLE_MODELS is not set: it names a folder with mobilenet_v2_imagenet.pth")
    return Path(folder)
