"""The split of the statistics head's log-odds adds up, and finds what and when."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from features.motion import NAMES
from model.explanation.exact_split import (
    by_depth,
    by_statistic,
    exact_split,
    mean_split,
    terms_of,
)
from model.explanation.occlusion_over_time import shared_out
from model.explanation.stream_attribution import stream_shares
from model.run.run import Run, load_run
from model.settings import HeadSettings
from model.training.heads import MAX_DEVIATION, Ensemble, Head
from model.training.over_time import OVER_TIME, over_time

COLUMNS = ("flow 4 turn", "flow 13 turn", "frames 4 turn", "frames 4 length")
WIDTHS = {"flow": 6, "motion": len(NAMES), "trajectory": len(COLUMNS)}
N_STEPS, WINDOW = 21, 8  # crops of a clip overlap


def clips(n=12):
    x = torch.randn(n, N_STEPS, sum(WIDTHS.values()), generator=torch.Generator().manual_seed(1))
    x = 5 + x * torch.logspace(-2, 2, x.shape[-1])
    x[:, 0, -4:] = torch.nan
    x[2, 3:9, -1] = torch.nan
    x[3, :, -2] = torch.nan
    return x


@pytest.fixture(scope="module")
def run(fitted):
    torch.manual_seed(0)
    heads = [Head(WIDTHS, HeadSettings("statistics")) for _ in range(2)]
    for n, head in enumerate(heads):
        head.standardise_by(clips(), torch.arange(n, 12))
        with torch.no_grad():
            head.branches[0].standardise_by(over_time(head.standardised(clips()[n:]).double()))
    config = load_run(fitted.folder).config
    training = dataclasses.replace(config.training, head="statistics")
    config = dataclasses.replace(
        config, widths=WIDTHS, training=training, trajectory=COLUMNS, temperature=1.7
    )
    return Run(fitted.folder, config, Ensemble(heads, WINDOW).eval())


def log_odds(run, x):
    with torch.inference_mode():
        return run.ensemble(x[None]).item() / run.config.temperature


@pytest.mark.parametrize("kind", ["usual", "with gaps", "undefined", "clipped", "still"])
def test_every_sum_is_the_log_odds(run, kind):
    x = clips()[{"with gaps": 2, "undefined": 3}.get(kind, 0)]
    if kind == "clipped":
        x[9:, 1] += 1e4
        z = run.ensemble.heads[0].standardised(x[-WINDOW:][None])
        branch = run.ensemble.heads[0].branches[0]
        assert branch.standardised(over_time(z.double())).max() == MAX_DEVIATION
    if kind == "still":
        x[:] = x[1]
    split, expected = exact_split(run, x), log_odds(run, x)
    assert split.moments.shape == x.shape
    assert split.statistics.shape == (len(OVER_TIME), x.shape[1])
    assert split.log_odds == pytest.approx(expected, abs=1e-9)
    assert split.statistics.sum(0) == pytest.approx(split.moments.sum(0), abs=1e-9)
    terms = terms_of(run.config, split)
    for sums in (
        [term.log_odds for term in terms],
        by_depth(terms).values(),
        by_statistic(split).values(),
        stream_shares(run, x[None]).values(),
    ):
        assert sum(sums) + split.constant == pytest.approx(expected, abs=1e-9)
    assert not split.moments[torch.isnan(x)].any(), "what is undefined adds nothing"


def test_the_mean_of_clips_is_the_verdict_on_their_video(run):
    x = clips()[:3]
    split = mean_split([exact_split(run, clip) for clip in x])
    assert split.log_odds == pytest.approx(np.mean([log_odds(run, clip) for clip in x]), abs=1e-9)
    shares = stream_shares(run, x)
    assert shares["flow"] == pytest.approx(split.moments[:, :6].sum())


def test_a_planted_moment_and_column_have_the_largest_part(run):
    x = clips()[0]
    still = x.clone()
    still[1:] = still[1]
    run = dataclasses.replace(run, ensemble=copy.deepcopy(run.ensemble))
    for head in run.ensemble.heads:
        weight = head.branches[0].classify.weight.data
        weight.zero_()
        weight.reshape(len(OVER_TIME), -1)[1, -3] = 1.0  # the spread of "flow 13 turn"
    still[13, -3] += 20 * x[1:, -3].std()
    split = exact_split(run, still)
    first = terms_of(run.config, split)[0]
    assert (first.stream, first.depth, first.column) == ("flow", "13", "turn")
    assert first.log_odds > 0
    assert split.moments.sum(1).argmax() == 13
    assert max(by_statistic(split), key=by_statistic(split).get) == "standard deviation"


def test_rows_are_divided_among_their_moments():
    found = shared_out(np.array([1.0, 6.0]), np.array([[0, 1], [1, 3]]), 5)
    assert found.tolist() == [0.5, 2.5, 2, 2, 0]
