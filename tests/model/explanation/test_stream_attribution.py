"""What each stream adds to a verdict: the log-odds without it are those of its training mean."""

import dataclasses

import numpy as np
import pytest
import torch

from model.explanation.stream_attribution import stream_shares
from model.run.run import Run, load_run
from model.settings import HeadSettings
from model.training.heads import Ensemble, Head

WIDTHS = {"flow": 4, "frames": 3, "motion": 2}
X = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 9, 9)).astype(np.float32))


def a_run(fitted, fusion) -> Run:
    """A run with untrained heads over three streams."""
    torch.manual_seed(0)
    heads = [Head(WIDTHS, HeadSettings("lstm", hidden=8, fusion=fusion)) for _ in range(2)]
    for head in heads:
        head.standardise_by(X * 2 + 1, torch.arange(3))
    config = dataclasses.replace(load_run(fitted.folder).config, widths=WIDTHS, temperature=0.5)
    return Run(fitted.folder, config, Ensemble(heads, 4).eval())


def log_odds(run, x):
    with torch.inference_mode():
        return float(run.ensemble(x).double().mean()) / run.config.temperature


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_a_share_is_what_is_lost_when_the_stream_stays_at_its_training_mean(fitted, fusion):
    run, start = a_run(fitted, fusion), 0
    found = stream_shares(run, X)
    assert list(found) == list(WIDTHS)
    mean = run.ensemble.heads[0].mean
    for stream, width in WIDTHS.items():
        without = X.clone()
        without[..., start : start + width] = mean[start : start + width]
        expected = log_odds(run, X) - log_odds(run, without)
        assert found[stream] == pytest.approx(expected, abs=1e-5)
        start += width


def test_with_late_fusion_the_shares_add_up(fitted):
    run = a_run(fitted, "late")
    nothing = run.ensemble.heads[0].mean.expand(X.shape)
    whole = log_odds(run, X) - log_odds(run, nothing)
    assert sum(stream_shares(run, X).values()) == pytest.approx(whole, abs=1e-5)
