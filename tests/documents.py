"""The commands and scripts in the documents and help texts, and how they run on a small corpus.

`CHANGED` and `NOT_RUN` say what is not done to the letter, and why. Commands within a sentence have
placeholders; `test_docs.py` checks that they can be typed.
"""

import csv
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.demo import make_demo

ROOT = Path(__file__).resolve().parent.parent
SIZE, T = (96, 72), 16  # of all videos, and their frames; faces are found in no smaller ones

CHANGED = [  # pattern, what is put in its place, why; in this order
    (r"/content/drive/MyDrive/(?=DFD_)", "data/", "there is no Drive; the videos are here"),
    (r"/content/drive/MyDrive/", "", "there is no Drive; the command is the one of the README"),
    (
        r"(pipeline\.extract .* -o \S+)",
        r"\1 --size 32x32 --frames 8 --test 0.1",
        "few small maps, few to test on",
    ),
    (r"--crop face", "--crop face --face-detector haar", "nothing is downloaded"),
    (r"--tune 20", "--tune 2", "time"),
    (r"(model\.fit caches/.*)", r"\1 --max-epochs 1 --cases 0", "time"),
    (r"(model\.fit .* -o runs/(?!first).*)", r"\1 --no-controls", "runs/first has them"),
    (r"--cases (5|10)", "--cases 1", "time"),
    (r"(pipeline\.pack \S+\.h5 -o )", r"\1there/", "here and there are one machine"),
    (r"find \. -name", "find downloads -name", "time"),
]
NOT_RUN = {  # a pattern of whole commands: why
    r"git clone .*": "needs a network, and installs; the tests run in what it makes",
    r"make .*": "hours in all; make demo is the commands of the README on more videos",
    r"python -m data\.fakes .*": "a texture has no face; tests/pipeline/own_fakes makes some",
    r"python -m pipeline\.extract (data/own/|.* --own-fakes).*": "for the same reason",
    r"python -m .* (caches|runs)/ann .*": "it goes on from what is not made, for the same reason",
    r"python -m model\.fit caches/ann-.*": "likewise",
    r"python -m data\.demo .*": "tests/data/test_demo.py makes smaller ones",
    r"for i in 1 2 3 4 5; do.*": "five trainings; tests/pipeline/test_split.py makes folds",
    r"source \S+/activate": "the tests run in that environment",
    r"python -m pipeline\.extract /shared/.* --ray auto": "needs a cluster: test_ray_cluster.py",
    r"ray start .*|srun .*|sleep 20|(head|start)=.*": "needs Ray or SLURM on several machines",
}
SCRIPT_CHANGED = {"lengths=(20, 24)": "lengths=(16, 18)", "max_epochs=5": "max_epochs=1"}  # time
SCRIPTS_NOT_RUN = {  # the beginning of a script: why
    "from torch.utils.data": "tests/features/test_datasets.py runs it",
    "with RayPool(": "needs a cluster: tests/pipeline/workers/test_ray_cluster.py has one",
    '"""Takes of our own studio': "tests/pipeline/corpus/layouts/test_layouts.py runs it",
}
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "data/README.md"]
DOCUMENTS += sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
MODULES = [
    *("pipeline.extract", "pipeline.split", "pipeline.audit", "pipeline.inspect", "pipeline.pack"),
    *("pipeline.doctor", "features.embed", "model.fit", "model.evaluate", "model.predict"),
    *("data.demo", "data.fakes"),
]
ABOUT_VIDEOS = re.compile(r"python -m pipeline\.(?!.*-resnet18)")  # needs neither network nor run


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


def typed() -> dict[str, list[str]]:
    """All commands, by the document or module they are in."""
    return {name: lines(name) for name in DOCUMENTS} | {name: examples(name) for name in MODULES}


def commands(*, about_videos: bool) -> dict[str, list[str]]:
    """Every command as it is run here, under the first document or module that has it."""
    found: dict[str, str] = {}
    for place, all_lines in typed().items():
        for line in all_lines:
            if not any(re.fullmatch(pattern, line, re.DOTALL) for pattern in NOT_RUN):
                found.setdefault(_changed(line), place)
    places: dict[str, list[str]] = {}
    for line, place in found.items():
        if bool(ABOUT_VIDEOS.match(line)) == about_videos:
            places.setdefault(place, []).append(line)
    return places


def _changed(line: str) -> str:
    for pattern, replacement, _ in CHANGED:
        line = re.sub(pattern, replacement, line)
    return line


def run(line: str) -> None:
    """Run a command in this process, with what a pipe before it gives."""
    before, _, command = line.rpartition(" | ")
    given = subprocess.run(before, shell=True, check=True, capture_output=True).stdout
    python, m, module, *arguments = shlex.split(command)
    assert (python, m) == ("python", "-m"), line
    done = CliRunner().invoke(importlib.import_module(module).main, arguments, input=given)
    assert done.exit_code == 0, f"{line}\n{done.output}{done.exception!r}"


def begin(here: Path, patch: pytest.MonkeyPatch) -> None:
    """Enter a reader's folder, and put into it what the documents take for granted."""
    patch.chdir(here)
    patch.setenv("TORCH_HOME", str(here / "torch"))
    patch.setenv("PYTHONPATH", str(ROOT))
    make_demo(here / "data", size=SIZE, lengths=(T, T))
    shutil.copytree("data/new", "downloads")
    shutil.copy("data/new/unseen_fake.mp4", "some_video.mp4")
    shutil.copy("data/new/unseen_real.mp4", "video.mp4")
    list_videos(Path("videos.csv"), sorted(here.glob("data/DFD_*/*.mp4")))
    with Path("split.csv").open("w", newline="") as file:
        sides = [["DFD_REAL/01__hall.mp4", "train"], ["DFD_REAL/02__hall.mp4", "test"]]
        csv.writer(file).writerows([["path", "split"], *sides])


def list_videos(file: Path, videos: list[Path]) -> None:
    """A CSV file of videos; everybody is in two, and fakes are of two manipulations."""
    rows = []
    for n, path in enumerate(videos):
        fake = "FAKE" in str(path)
        kind = ("Deepfakes", "Face2Face")[n % 2] if fake else ""
        rows.append([path, "fake" if fake else "real", f"person {n % (len(videos) // 2)}", kind])
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["path", "label", "identity", "manipulation"], *rows])


def assert_there(*promised: str) -> None:
    """Each argument is a folder and the names in it, as ``caches: a.h5 b``."""
    for folder, names in (line.split(": ") for line in promised):
        assert set(names.split()) <= {path.name for path in Path(folder).iterdir()}, folder
