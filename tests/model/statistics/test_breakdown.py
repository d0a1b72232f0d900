"""Parts of a split: by hand, and only where there are several."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.evaluation.evaluation import evaluate
from model.fitting import fit
from model.reports.run_report import write_report
from model.reports.summary import table
from model.statistics.breakdown import UNSTATED, by_manipulation, by_source


@pytest.fixture
def videos(clip):
    """Sixty videos of forty-five people: three manipulations, one without a name, two sources."""
    rng = np.random.default_rng(0)
    names = ["Deepfakes", "Face2Face", ""]
    clips = [
        clip(
            n,
            n % 2,
            manipulation=names[n % 3] if n % 2 else "",
            source="one" if n % 4 < 2 else "two",
            identities=(f"person:{n % 45}",),
        )
        for n in range(60)
    ]
    return clips, rng.random(60).round(2), np.arange(60) % 45


def test_each_manipulation_is_held_against_all_real_videos(videos):
    clips, p, groups = videos
    found = by_manipulation(clips, p, 0.6, groups)
    assert set(found) == {"Deepfakes", "Face2Face", UNSTATED}
    real = np.array([clip.label == 0 for clip in clips])
    for name, part in found.items():
        mine = np.array([c.label == 1 and (c.manipulation or UNSTATED) == name for c in clips])
        assert (part.real, part.fake) == (real.sum(), mine.sum()) == (30, 10)
        rows = real | mine
        assert part.auc_roc.value == pytest.approx(roc_auc_score(mine[rows], p[rows]))
        assert part.auc_roc.low <= part.auc_roc.value <= part.auc_roc.high
        assert part.fakes_called_fake.value == (p[mine] >= 0.6).mean()
        assert part.fakes_called_fake.n == 10
        assert part.reals_called_fake.value == (p[real] >= 0.6).mean()
        assert part.reals_called_fake.n == 30


def test_each_source_is_all_of_its_videos(videos):
    clips, p, groups = videos
    for name, part in by_source(clips, p, 0.6, groups).items():
        mine = np.array([clip.source == name for clip in clips])
        labels = np.array([clip.label for clip in clips])[mine]
        assert (part.real, part.fake) == ((labels == 0).sum(), labels.sum())
        assert part.auc_roc.value == pytest.approx(roc_auc_score(labels, p[mine]))


def test_a_source_with_one_class_has_no_auc(videos):
    clips, p, groups = videos
    clips = [dataclasses.replace(clip, source="ab"[clip.label]) for clip in clips]
    found = by_source(clips, p, 0.6, groups)
    assert found["a"].auc_roc.value is None
    assert found["a"].fakes_called_fake.value is None
    assert found["b"].fakes_called_fake.value is not None


def test_one_value_is_no_breakdown(videos):
    clips, p, groups = videos
    clips = [
        dataclasses.replace(clip, source="dfd", manipulation="DFD" if clip.label else "")
        for clip in clips
    ]
    assert by_manipulation(clips, p, 0.6, groups) == {}
    assert by_source(clips, p, 0.6, groups) == {}


def test_table_report_and_json_show_the_parts(easy_corpus, fabricate, fast, tmp_path):
    clips, x = easy_corpus(24)
    clips = [
        dataclasses.replace(
            clip,
            manipulation=("Deepfakes", "<b>Face2Face")[n // 2 % 2] if clip.label else "",
            source=("/somewhere/very/far/away/one.csv", "dfd")[n // 2 % 2],
        )
        for n, clip in enumerate(clips)
    ]
    settings = dataclasses.replace(fast, max_epochs=1)
    cache = fabricate(clips, x)
    run = fit(cache, tmp_path / "run", settings=settings, n_folds=2, device="cpu")
    evaluation = evaluate(run, controls=False)
    text, page = table(evaluation), write_report(run, evaluation).read_text()
    assert "by manipulation, against all real videos" in text
    assert "Test by source" in page
    assert "<b>Face2Face" not in page
    for name in ("Deepfakes", "dfd", "away/one.csv"):
        assert name in text
        assert name in page
    assert max(map(len, text.splitlines())) <= 100
    found = json.loads((run.folder / "metrics.json").read_text())
    assert set(found["by_manipulation"]["test"]) == {"Deepfakes", "<b>Face2Face"}
    part = found["by_source"]["test"]["dfd"]
    assert part["real"] + part["fake"] == 6
    assert set(part["auc_roc"]) == {"value", "low", "high", "n"}
