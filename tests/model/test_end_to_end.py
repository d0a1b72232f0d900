"""The whole chain on real clips, through the command lines, as a user goes through it."""

import csv
import json
import os
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pytest

PEOPLE = {  # who is in the clips of SAMPLE_VIDEOS/people
    "A": ("again", "help"),
    "B": ("bird",),
    "C": ("book",),
    "D": ("eat",),
    "E": ("hungry",),
}
FAKED = ("again", "bird", "book", "eat", "hungry")
N_CLIPS = 11


def make_fake(source: Path, target: Path, seed: int) -> None:
    """Re-synthesise the face as swaps fail: smoothed over time, shaking, with a blended border."""
    with av.open(str(source)) as container:
        rate = container.streams.video[0].average_rate
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    rng = np.random.default_rng(seed)
    _, height, width, _ = frames.shape
    y, x, h, w = height // 12, width // 3, height // 2, width // 3
    face = frames[:, y : y + h, x : x + w].astype(np.float32)
    mask = np.zeros((h, w, 1), np.float32)
    mask[h // 6 : -(h // 6), w // 6 : -(w // 6)] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), h / 16)[..., None]
    with av.open(str(target), "w") as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": "20", "preset": "superfast"}
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for n, frame in enumerate(frames):
            smooth = face[max(0, n - 2) : n + 3].mean(0)
            dx, dy = rng.normal(0, 1.2, 2)
            moved = cv2.warpAffine(
                smooth, np.float32([[1, 0, dx], [0, 1, dy]]), (w, h), borderMode=cv2.BORDER_REFLECT
            )
            picture = frame.copy()
            picture[y : y + h, x : x + w] = mask * moved + (1 - mask) * face[n]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def corpus(sample_videos, tmp_path_factory):
    """A folder with a CSV file of real clips and of fakes made from some of them."""
    folder = tmp_path_factory.mktemp("real clips")
    rows = []
    for person, words in PEOPLE.items():
        for word in words:
            source = sample_videos / "people" / f"asl_{word}.mkv"
            rows.append([source, "real", f"person {person}"])
            if word in FAKED:
                fake = folder / f"{word}_fake.mp4"
                make_fake(source, fake, seed=len(rows))
                rows.append([fake.name, "fake", f"person {person}"])
    with (folder / "corpus.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "identity"], *rows])
    return folder


@pytest.mark.slow
def test_from_real_clips_to_verdicts(corpus, run_as_main, monkeypatch):
    def run(module, *arguments):
        code, output = run_as_main(module, *arguments)
        assert code == 0, output
        return output

    monkeypatch.chdir(corpus)
    models = os.environ.get("SAMPLE_MODELS")
    weights = Path(models, "mobilenet_v2_imagenet.pth") if models else "random:0"
    given = ["--weights", weights] if models else []
    one = ["--jobs", 1]

    run("pipeline.extract", "corpus.csv", "-o", "clips", "--size", "96", "--frames", "16", *one)
    embedded = run(
        "features.embed", "clips", "-o", "embeddings",
        "--backbone", "mobilenet_v2", "--weights", weights,
    )  # fmt: skip
    assert f"{N_CLIPS} clips, flow and frames as vectors of 1280 numbers" in embedded
    run("model.fit", "embeddings", "-o", "run", "--tune", 2, "--max-epochs", 3, "--cases", 0)
    table = run("model.evaluate", "run")
    videos = [corpus / "again_fake.mp4", corpus / "clips" / "names.csv"]
    verdicts = run("model.predict", "run", *videos, "--json", *given, *one)

    with h5py.File(corpus / "embeddings" / "index.h5") as index:
        T = int(index.attrs["frames"])
        assert T == 16
        assert len(index["clips"]) == N_CLIPS
        for clip in index["data"].values():  # the links work in any HDF5 reader
            assert clip["flow"].shape == (T - 1, 1280)
            assert clip["frames"].shape == (T - 1, 1280)
            assert np.isfinite(clip["flow"][:]).all()
            assert np.asarray(clip["flow"][:]).std(0).max() > 0
        rows = index["clips"][:]
    sides: dict[bytes, set[bytes]] = {}
    for row in rows:
        if row["split"]:
            sides.setdefault(row["identities"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values()), "a person is on two sides"

    with (corpus / "run" / "predictions.csv").open(newline="") as file:
        predicted = {row["id"]: row for row in csv.DictReader(file)}
    assert len(predicted) == N_CLIPS
    metrics = json.loads((corpus / "run" / "metrics.json").read_text())
    assert metrics["coverage"]["test"]["videos"] == metrics["coverage"]["test"]["scored"] > 0
    assert "fake called fake" in table
    assert len((corpus / "run" / "trials.csv").read_text().splitlines()) == 3
    names = {path.name for path in (corpus / "run").iterdir()}
    assert {"model.pt", "config.json", "report.html", "training.png"} <= names

    fake, table_of_names = map(json.loads, verdicts.splitlines())
    assert fake["verdict"] in ("real", "fake")
    assert 0 <= fake["probability"] <= 1
    assert table_of_names["verdict"] == "undecidable"
    assert "not a video" in table_of_names["reason"]
