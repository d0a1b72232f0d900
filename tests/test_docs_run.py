"""Every command and script in the documents runs, as a reader types it, on a small corpus.

`CHANGED` and `NOT_RUN` say what is not done to the letter, and why. Commands within a sentence have
placeholders; `test_docs.py` checks that they can be typed.
"""

import csv
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from data.demo import make_demo
from features.architectures import architecture
from features.weights import load_model

ROOT = Path(__file__).resolve().parent.parent
SIZE, T = (96, 72), 20  # of all videos, and their frames

CHANGED = [  # pattern, what is put in its place, why; in this order
    (r"/content/drive/MyDrive/(?=DFD_)", "data/", "there is no Drive; the videos are here"),
    (r"/content/drive/MyDrive/", "", "there is no Drive; the command is the one of the README"),
    (r"(pipeline\.extract .* -o \S+)", r"\1 --size 64x64 --test 0.1", "small maps, few to test on"),
    (r"--crop face", "--crop face --face-detector haar", "nothing is downloaded"),
    (r"--tune 20", "--tune 2", "time"),
    (r"(model\.fit caches/.*)", r"\1 --max-epochs 2", "time"),
    (r"(pipeline\.pack \S+\.h5 -o )", r"\1there/", "here and there are one machine"),
    (r"find \. -name", "find downloads -name", "time"),
]
NOT_RUN = {  # a pattern of whole commands: why
    r"git clone .*": "needs a network, and installs; the tests run in what it makes",
    r"make .*": "hours in all; make demo is the commands of the README on more videos",
    r"python -m data\.demo .*": "tests/data/test_demo.py makes smaller ones",
    r"for i in 1 2 3 4 5; do.*": "five trainings; tests/pipeline/test_split.py makes folds",
    r"source \S+/activate": "the tests run in that environment",
    r"python -m pipeline\.extract /shared/.* --ray auto": "needs a cluster: test_ray_cluster.py",
    r"ray start .*|srun .*|sleep 20|(head|start)=.*": "needs Ray or SLURM on several machines",
}
SCRIPTS_NOT_RUN = {  # the beginning of a script: why
    "from torch.utils.data": "tests/features/test_datasets.py runs it",
    "with RayPool(": "needs a cluster: tests/pipeline/workers/test_ray_cluster.py has one",
    '"""Takes of our own studio': "tests/pipeline/corpus/layouts/test_layouts.py runs it",
}
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "data/README.md"]
DOCUMENTS += sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
COMMANDS = [
    *("pipeline.extract", "pipeline.split", "pipeline.audit", "pipeline.inspect", "pipeline.pack"),
    *("pipeline.doctor", "features.embed", "model.fit", "model.evaluate", "model.predict"),
    "data.demo",
]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def lines(document: str) -> list[str]:
    """The commands of a document's shell blocks, without their comments."""
    text = "".join(blocks(document, "sh")).replace("\\\n", " ")
    found = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in text.splitlines()]
    return [line for line in found if line]


def examples(module: str) -> list[str]:
    """The commands in a help text."""
    text = inspect.cleandoc(importlib.import_module(module).main.help)
    text = text.split("Example", 1)[1].split(":\n", 1)[1]
    return re.findall(r"^  (\S.*(?:\n    .*|\n  done)*)", text, re.M)


def left_out(line: str) -> bool:
    return any(re.fullmatch(pattern, line, re.DOTALL) for pattern in NOT_RUN)


def changed(line: str) -> str:
    """The command as it is run here."""
    for pattern, replacement, _ in CHANGED:
        line = re.sub(pattern, replacement, line)
    return line


def run(line: str) -> None:
    """Run a command in this process, and whatever else a shell takes in bash."""
    words = shlex.split(line)
    if words[:2] == ["python", "-m"]:
        done = CliRunner().invoke(importlib.import_module(words[2]).main, words[3:])
        assert done.exit_code == 0, f"{line}\n{done.output}{done.exception!r}"
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-o", "pipefail", "-ec", line]
    done = subprocess.run(shell, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def type_in(line: str) -> None:
    """Run a command of a document, changed as the tables say."""
    if left_out(line):
        return
    line = changed(line)
    if re.search(r"pipeline\.(pack|split) ", line):  # which want a new name
        out = Path(line.split(" -o ")[1].split()[0])
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    run(line)


def save_weights(name: str, path: Path) -> None:
    model, _, _ = load_model(architecture(name), "random:0")
    torch.save(model.state_dict(), path)


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory, make_corpus):
    """The folder of somebody who went through the README, and what documents take for granted."""
    here = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("TORCH_HOME", str(here / "torch"))
        patch.setenv("PYTHONPATH", str(ROOT))
        make_demo(here / "data", size=SIZE, lengths=(T, T))
        shutil.copytree("data/new", "downloads")
        shutil.copy("data/new/unseen_fake.mp4", "some_video.mp4")
        shutil.copy("data/new/unseen_real.mp4", "video.mp4")
        Path("torch/hub/checkpoints").mkdir(parents=True)
        downloaded = architecture("resnet18").preset.url.rsplit("/", 1)[-1]
        save_weights("resnet18", Path("torch/hub/checkpoints", downloaded))
        shutil.copy(f"torch/hub/checkpoints/{downloaded}", downloaded)
        save_weights("efficientnet_b0", Path("mine.pth"))
        list_videos(Path("videos.csv"), sorted(here.glob("data/DFD_*/*.mp4")))
        with Path("split.csv").open("w", newline="") as file:
            sides = [["DFD_REAL/01__hall.mp4", "train"], ["DFD_REAL/02__hall.mp4", "test"]]
            csv.writer(file).writerows([["path", "split"], *sides])

        for line in lines("README.md"):
            type_in(line)
        type_in("python -m model.fit caches/dfd-resnet18 -o runs/other --head mean")
        videos = make_corpus(here / "others", (T,) * 12, (T,) * 12, size=SIZE, seed=50)
        list_videos(Path("others.csv"), list(videos.values()))
        type_in("python -m pipeline.extract others.csv -o caches/ffpp")
        type_in("python -m features.embed caches/ffpp -o caches/ffpp-resnet18")
        shutil.copytree("caches/ffpp-resnet18", "caches/celebdf-resnet18")
        shutil.copytree("caches/ffpp-resnet18", "caches/other-resnet18")
        yield


def list_videos(file: Path, videos: list[Path]) -> None:
    """A CSV file of videos; everybody is in two, and fakes are of two manipulations."""
    rows = []
    for n, path in enumerate(videos):
        fake = "FAKE" in str(path)
        kind = ("Deepfakes", "Face2Face")[n % 2] if fake else ""
        rows.append([path, "fake" if fake else "real", f"person {n % (len(videos) // 2)}", kind])
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["path", "label", "identity", "manipulation"], *rows])


@pytest.mark.slow
def test_the_commands_of_the_readme_make_what_it_promises(after_readme):
    promised = (
        "caches/dfd: index.h5 shards rejected.csv names.csv datacard.md SHA256SUMS timing.csv",
        "caches/dfd-resnet18: index.h5 shards SHA256SUMS",
        "runs/first: model.pt config.json metrics.json predictions.csv trials.csv history.csv "
        "training.csv controls.pt anomaly.npz band.json sweep.csv report.html cases",
        "runs/again: model.pt",
        ".: dfd.html dfd.h5 verdicts.csv out",
    )
    for folder, names in (line.split(": ") for line in promised):
        assert set(names.split()) <= {path.name for path in Path(folder).iterdir()}, folder


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "README.md"])
def test_every_command_of_a_document_runs_after_those_of_the_readme(document, after_readme):
    for line in lines(document):
        type_in(line)


@pytest.mark.slow
@pytest.mark.parametrize("module", COMMANDS)
def test_every_example_in_a_help_text_runs(module, after_readme):
    for example in examples(module):
        type_in(example)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_script_of_a_document_runs(document, after_readme):
    for script in blocks(document, "python"):
        if not any(script.startswith(beginning) for beginning in SCRIPTS_NOT_RUN):
            Path("script.py").write_text(script, encoding="utf-8")
            run(f"{shlex.quote(sys.executable)} script.py")


def test_whatever_the_tables_name_is_in_a_document():
    typed = [line for document in DOCUMENTS for line in lines(document)]
    typed += [example for module in COMMANDS for example in examples(module)]
    for pattern, _, _ in CHANGED:
        assert any(re.search(pattern, line) for line in typed), pattern
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, line, re.DOTALL) for line in typed), pattern
    scripts = [script for document in DOCUMENTS for script in blocks(document, "python")]
    for beginning in SCRIPTS_NOT_RUN:
        assert any(script.startswith(beginning) for script in scripts)
