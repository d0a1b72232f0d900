"""Caches of embeddings made up from given sequences, runs fitted on them, and small real videos."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from threadpoolctl import threadpool_limits

from data.clips import made_up_clip, write_shard
from features.backbones import load_backbone
from features.embedding import embed
from features.motion import NAMES
from model.fitting import fit
from model.settings import TrainingSettings
from model.training.sequences import Sequences
from pipeline.cache import Cache, write_index
from pipeline.corpus.labelled_video import Video
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings
from pipeline.splits.protocols import Splitting


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks and matrices: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip():
    """Make a row of an index; see `made_up_clip`."""
    return made_up_clip


@pytest.fixture(scope="session")
def sequences():
    """`Sequences` straight from arrays, without a cache."""

    def make(x, labels) -> Sequences:
        clips = tuple(made_up_clip(n, int(label)) for n, label in enumerate(labels))
        x = torch.from_numpy(np.asarray(x, np.float32))
        return Sequences(x, clips, {"flow": x.shape[-1]})

    return make


@pytest.fixture(scope="session")
def fabricate(tmp_path_factory):
    """Make a cache of embeddings without any video, as `features.embedding.embed` writes it."""

    def make(
        clips,
        x,
        *,
        frames=None,
        motion=None,
        trajectory=None,
        columns=(),
        folder=None,
        weights="file",
        extraction=None,
        **embedding,
    ) -> Cache:
        """`clips`: N rows; `x`: (N, T-1, D), the stream `flow`; and the like of it for `frames`;
        `motion`: (N, T-1, K), by default nothing moves; `trajectory`: (N, T-1, K'), `columns` long.
        """
        folder = folder or tmp_path_factory.mktemp("fabricated") / "cache"
        steps, dimension = x.shape[1:]
        if motion is None:
            motion = np.zeros((len(x), steps, len(NAMES)))
        rows = np.repeat(np.arange(steps)[:, None], 2, axis=1)
        settings = {
            "backbone": "mobilenet_v2",
            "weights": weights,
            "weights_sha256": "0" * 64,
            "streams": ["flow"],
            "flow_scale": None,
            "every": 1,
            "augment": [],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "precision": "float32",
            "source_sha256": "1" * 64,
        } | embedding
        clips = [dataclasses.replace(clip, n_frames=steps + 1) for clip in clips]
        data = {
            clip.id: {
                "flow": flow.astype(np.float16),
                "motion": moves.astype(np.float32),
                "rows": rows,
            }
            for clip, flow, moves in zip(clips, x, motion, strict=True)
        }
        if frames is not None:
            settings["streams"] = ["flow", "frames"]
            for clip, of_clip in zip(clips, frames, strict=True):
                data[clip.id]["frames"] = of_clip.astype(np.float16)
        if trajectory is not None:
            for clip, of_clip in zip(clips, trajectory, strict=True):
                data[clip.id]["trajectory"] = of_clip.astype(np.float32)
        shard = write_shard(folder, "shards/00000.h5", data, attrs={"settings": "made up"})
        source = dataclasses.asdict(Settings()) | {"corpus": "made up"} | (extraction or {})
        write_index(
            folder,
            stage="embed",
            settings=settings,
            attrs={
                "backbone": f"mobilenet_v2, weights {weights}",
                "dimension": dimension,
                "motion": json.dumps(NAMES),
                "trajectory": json.dumps(columns),
                "source_settings": json.dumps(source),
                "rejected": "{}",
                "frames": steps + 1,
                "versions": "{}",
            },
            clips=clips,
            shards=[shard],
        )
        return Cache(folder, "embed")

    return make


@pytest.fixture(scope="session")
def easy_corpus():
    """A real and a fake clip of each of many people; fakes swing back and forth besides."""

    def make(n_people=44, *, steps=12, dimension=6, seed=0, shift=2.5):
        rng = np.random.default_rng(seed)
        x, clips = [], []
        wave = np.sin(np.arange(steps) * np.pi / 2)[:, None] * rng.choice([-1, 1], dimension)
        for n in range(2 * n_people):
            person, label = n // 2, n % 2
            own = 0.5 * np.random.default_rng([seed, person]).normal(size=dimension)
            x.append(own + label * shift * wave + rng.normal(size=(steps, dimension)))
            split = {0: "test", 1: "test", 2: "holdout"}.get(person % 8, "train")
            clips.append(made_up_clip(n, label, split, identities=(f"person:{person}",)))
        return clips, np.array(x, np.float32)  # (N, T-1, D)

    return make


FAST = TrainingSettings(
    head="lstm",
    hidden=12,
    max_epochs=12,
    patience=4,
    learning_rate=1e-2,
    batch_size=8,
    sequence_length=12,
    streams=("flow",),
)


@pytest.fixture(scope="session")
def fast():
    """Settings of a head that is trained within a second."""
    return FAST


@pytest.fixture(scope="session")
def quick(fast):
    """Settings with which a head is trained in no time."""
    return dataclasses.replace(fast, max_epochs=2)


@pytest.fixture(scope="session")
def small(fabricate, easy_corpus):
    """A cache of sixteen people."""
    return fabricate(*easy_corpus(16))


@pytest.fixture(scope="session")
def small_run(small, quick, tmp_path_factory):
    """The folder of a run over `small`, trained in no time. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    fit(small, folder, settings=quick, device="cpu")
    return folder


@pytest.fixture(scope="session")
def tuned_run(small, quick, tmp_path_factory):
    """The folder of a run over `small` with three trials. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    fit(small, folder, settings=quick, n_trials=3, device="cpu")
    return folder


@dataclass(frozen=True)
class Fitted:
    cache: Cache
    folder: Path


@pytest.fixture(scope="session")
def fitted(fabricate, easy_corpus, tmp_path_factory):
    """A run over an easy corpus in which two videos are in no split."""
    clips, x = easy_corpus()
    clips[-2:] = [dataclasses.replace(clip, split="") for clip in clips[-2:]]
    cache = fabricate(clips, x)
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(cache, folder, settings=FAST, device="cpu")
    return Fitted(cache, folder)


@pytest.fixture
def run_command():
    """Run a command in this process: exit code, stdout and stderr."""
    return lambda command, *args: CliRunner().invoke(command, list(map(str, args)))


# ------------------------------------------------------------------------------------ real videos


def _write_video(path: Path, *, seed: int, n_frames: int = 24, fps: int = 25) -> Path:
    """A textured patch over a textured background, as H.264: it drifts, or shakes if odd."""
    rng = np.random.default_rng(seed)
    background = np.kron(rng.integers(40, 160, (9, 12, 3)), np.ones((8, 8, 1)))
    patch = np.kron(rng.integers(90, 255, (6, 6, 3)), np.ones((4, 4, 1)))
    if seed % 2:
        steps = rng.integers(-3, 4, (n_frames, 2))
    else:
        steps = np.round(8 * np.sin(np.arange(n_frames)[:, None] / 5 + rng.uniform(0, 6, 2)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = 72, 96, "yuv420p"
        for dx, dy in steps.astype(int):
            picture = background.copy()
            picture[24 + dy : 48 + dy, 36 + dx : 60 + dx] = patch
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video():
    return _write_video


@dataclass(frozen=True)
class Chain:
    """Real videos, and everything made from them."""

    videos: dict[str, Path]  # id → file
    cache: Cache
    weights: Path
    folder: Path  # of the run


@pytest.fixture(scope="session")
def chain(in_process, tmp_path_factory):
    """From sixteen real files through the real stages to a run: two clips a video, both streams."""
    folder = tmp_path_factory.mktemp("chain")
    videos = [
        Video(
            _write_video(folder / f"{n}.mp4", seed=n, fps=(24, 25, 30)[n % 3], n_frames=18 + n % 4),
            label=n % 2,
            identities=(f"person:{n}",),
        )
        for n in range(16)
    ]
    settings = Settings(width=64, height=64, frames=9, clips=2, splitting=Splitting(test=0.25))
    clips = extract(videos, folder / "clips", settings, in_process)
    weights = folder / "weights.pth"
    torch.save(_lively_mobilenet().state_dict(), weights)
    backbone = load_backbone("mobilenet_v2", str(weights), "cpu")
    cache = embed(clips, folder / "embeddings", backbone)
    fit(
        cache,
        folder / "run",
        settings=dataclasses.replace(
            FAST, max_epochs=4, sequence_length=5, streams=("flow", "frames", "motion")
        ),
        n_folds=2,
        device="cpu",
    )
    paths = {id_: Path(path) for id_, path in clips.names().items()}
    return Chain(paths, cache, weights, folder / "run")


def _lively_mobilenet() -> torch.nn.Module:
    """Random weights whose batch norms are set as training would, so that pictures differ."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        network = torchvision.models.mobilenet_v2(weights=None)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()(torch.randn(8, 3, 64, 64))
    return network


@pytest.fixture(scope="session")
def sample_videos():
    folder = os.environ.get("SAMPLE_VIDEOS")
    if not folder:
        pytest.skip("SAMPLE_VIDEOS is not set: it names a folder with real clips in people/")
    return Path(folder)
