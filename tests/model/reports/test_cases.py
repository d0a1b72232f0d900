"""Pages about the worst mistakes: of the very videos, led to by the report, and gone with them."""

import dataclasses
import shutil

import pytest

from model.evaluate import main as evaluate_command
from model.evaluation.evaluation import evaluate
from model.evaluation.per_video import ENSEMBLE, WRONG, worst_mistakes
from model.run import load_run, save_run


@pytest.fixture
def mistaken(chain, tmp_path):
    """A run that calls everything fake."""
    shutil.copytree(chain.folder, tmp_path / "run")
    run = load_run(tmp_path / "run")
    save_run(dataclasses.replace(run, config=dataclasses.replace(run.config, threshold=0.0)))
    return tmp_path / "run"


def test_pages_are_about_the_worst_mistakes_and_the_report_leads_to_them(
    chain, mistaken, run_command
):
    there = ("--cache", chain.cache.folder, "--weights", chain.weights, "--device", "cpu")
    command = (mistaken, *there, "--no-controls", "--jobs", 1)
    done = run_command(evaluate_command, *command, "--cases", 1)
    assert done.exit_code == 0, done.output
    assert "pages about 1 of the worst mistakes:" in done.output
    (page,) = (mistaken / "cases").glob("*.html")
    assert page.with_suffix(".mp4").is_file() and str(page) in done.output
    clip = next(clip for clip in chain.cache.clips if clip.video == page.stem)
    assert clip.label == 0 and clip.split in ("test", "holdout")
    assert chain.videos[page.stem].name in page.read_text()
    assert f'href="cases/{page.name}"' in (mistaken / "report.html").read_text()

    stale = page.with_name("stale.html")
    stale.touch()
    assert run_command(evaluate_command, *command, "--cases", 1).exit_code == 0
    assert not stale.exists() and page.is_file()


def test_only_unseen_and_wrong_videos_are_mistakes(chain, mistaken):
    evaluation = evaluate(load_run(mistaken), chain.cache, controls=False, device="cpu")
    worst = worst_mistakes(evaluation.videos, 100)
    assert worst and all((v.outcome, v.scored_by) == (WRONG, ENSEMBLE) for v in worst)
    assert all(v.label == "real" for v in worst)
