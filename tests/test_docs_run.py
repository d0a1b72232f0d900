"""Every command in the documents runs, as a reader types it: networks, runs and verdicts.

`test_docs_run_data.py` has those about videos and caches, and the scripts.
"""

import shutil
from pathlib import Path

import pytest
import torch

from features.architectures import architecture
from features.weights import load_model
from tests.documents import (
    SIZE,
    T,
    assert_there,
    begin,
    commands,
    list_videos,
    run,
)

HERE = commands(about_videos=False)
EXTRACT = "python -m pipeline.extract {} -o {} --size 32x32 --frames 8 --test 0.1"


def save_weights(name: str, path: Path) -> None:
    model, _, _ = load_model(architecture(name), "random:0")
    torch.save(model.state_dict(), path)


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory, make_corpus):
    """The folder of somebody who went through the README, and caches that documents name."""
    here = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        begin(here, patch)
        Path("torch/hub/checkpoints").mkdir(parents=True)
        downloaded = architecture("resnet18").preset.url.rsplit("/", 1)[-1]
        save_weights("resnet18", Path("torch/hub/checkpoints", downloaded))
        save_weights("efficientnet_b0", Path("mine.pth"))
        run(EXTRACT.format("data/DFD_REAL data/DFD_FAKE", "caches/dfd"))
        for line in HERE["README.md"]:
            run(line)
        videos = make_corpus(here / "others", (T,) * 8, (T,) * 8, size=SIZE, seed=50)
        list_videos(Path("others.csv"), list(videos.values()))
        run(EXTRACT.format("others.csv", "caches/ffpp"))
        run("python -m features.embed caches/ffpp -o caches/ffpp-resnet18")
        shutil.copytree("caches/ffpp-resnet18", "caches/celebdf-resnet18")
        yield


@pytest.mark.slow
def test_the_commands_of_the_readme_make_what_it_promises(after_readme):
    assert_there(
        "caches/dfd-resnet18: index.h5 shards SHA256SUMS",
        "runs/first: model.pt config.json metrics.json predictions.csv trials.csv history.csv "
        "training.csv controls.pt anomaly.npz band.json sweep.csv report.html cases",
        "runs/again: model.pt",
        ".: verdicts.csv out",
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", [place for place in HERE if place != "README.md"])
def test_every_other_command_runs_after_those_of_the_readme(place, after_readme):
    for line in HERE[place]:
        run(line)
