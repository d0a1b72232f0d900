"""Pages about the worst mistakes: of the very videos, led to by the report, and gone with them."""

import dataclasses
import shutil

import pytest

from model.evaluate import main as evaluate_command
from model.fit import main as fit_command
from model.run.run import load_run, save_run


def calling_everything_fake(folder, threshold=0.0):
    run = load_run(folder)
    save_run(dataclasses.replace(run, config=dataclasses.replace(run.config, threshold=threshold)))
    return folder


@pytest.fixture
def mistaken(chain, tmp_path):
    """A run that calls everything fake."""
    return calling_everything_fake(shutil.copytree(chain.folder, tmp_path / "run"))


@pytest.fixture
def command(chain, mistaken):
    return mistaken, "--cache", chain.cache.folder, "--device", "cpu", "--no-controls", "--jobs", 1


@pytest.mark.slow
def test_pages_are_about_the_worst_mistakes_and_the_report_leads_to_them(
    chain, mistaken, command, run_command
):
    command = (*command, "--weights", chain.weights)
    done = run_command(evaluate_command, *command, "--cases", 1)
    assert done.exit_code == 0, done.output
    assert "pages about 1 of the worst mistakes:" in done.output
    (page,) = (mistaken / "cases").glob("*.html")
    assert page.with_suffix(".mp4").is_file() and str(page) in done.output
    clip = next(clip for clip in chain.cache.clips if clip.video == page.stem)
    assert clip.label == 0 and clip.split in ("test", "holdout")
    assert chain.videos[page.stem].name in page.read_text()
    assert f'href="cases/{page.name}"' in (mistaken / "report.html").read_text()

    written = page.stat().st_mtime_ns
    stale = page.with_name("stale.html")
    stale.touch()
    assert run_command(evaluate_command, *command, "--cases", 1).exit_code == 0
    assert not stale.exists()
    assert page.stat().st_mtime_ns == written, "a page that is there is not written again"
    calling_everything_fake(mistaken, threshold=1e-9)
    assert run_command(evaluate_command, *command, "--cases", 1).exit_code == 0
    assert page.stat().st_mtime_ns > written, "but one by a run of other settings is"


def test_pages_nobody_asked_for_are_left_out_where_weights_are_missing(
    mistaken, command, run_command
):
    done = run_command(evaluate_command, *command)
    assert done.exit_code == 0, done.output
    assert "no page about " in done.output
    assert "weights from a file" in done.output
    assert f"model.evaluate {mistaken} --cases 3 [--videos FOLDER] [--weights PATH]" in done.output
    assert (mistaken / "report.html").is_file() and not (mistaken / "cases").exists()
    assert run_command(evaluate_command, *command, "--cases", 3).exit_code == 2


def test_the_report_that_training_writes_leads_to_pages_too(chain, tmp_path, run_command):
    untrained = ("--learning-rate", 1e-9, "--max-epochs", 1, "--folds", 2, "--no-controls")
    untrained += ("--head", "lstm", "--streams", "flow,motion")
    run = tmp_path / "run"
    command = (chain.cache.folder, "-o", run, "--weights", chain.weights, *untrained)
    done = run_command(fit_command, *command, "--device", "cpu", "--cases", 1)
    assert done.exit_code == 0, done.output
    (page,) = (run / "cases").glob("*.html")
    assert str(page) in done.output
    assert f'href="cases/{page.name}"' in (run / "report.html").read_text()
