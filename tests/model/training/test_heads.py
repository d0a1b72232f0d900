"""The heads and the ensemble: shapes, pooling, temporal crops."""

import itertools

import pytest
import torch

from model.settings import FUSIONS, HEADS, POOLINGS, HeadSettings
from model.training.heads import Ensemble, Head, clip_logits

WIDTHS = {"flow": 3, "motion": 2}
SHAPES = [
    *(HeadSettings("mean", dropout=0.0, fusion=fusion) for fusion in FUSIONS),
    HeadSettings("gru", 8, 2, bidirectional=True, dropout=0.0, fusion="late"),
    *(
        HeadSettings(kind, 8, layers, bidirectional, pooling, dropout=0.0)
        for kind in HEADS
        for layers in (1, 2)
        for bidirectional in ([False, True] if kind == "lstm" else [False])
        for pooling in POOLINGS
        if kind not in ("mean", "gru")  # which are recurrent as the LSTM
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, vars(s).values())))
def test_every_head_gives_one_logit_per_sequence_and_learns_in_all_its_parts(shape):
    torch.manual_seed(0)
    head = Head(WIDTHS, shape)
    logits = head(torch.randn(3, 7, 5))
    assert logits.shape == (3,)
    logits.square().sum().backward()
    idle = {name for name, p in head.named_parameters() if not p.grad.abs().sum()}
    blind = ("attend.bias", "in_proj_bias")  # softmax does not care about a common constant
    assert all(name.endswith(blind) for name in idle), idle


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "mean"])
def test_the_order_of_time_matters_to_all_but_the_mean(kind):
    torch.manual_seed(0)
    head = Head({"flow": 5}, HeadSettings(kind, 8, dropout=0.0)).eval()
    mean = Head({"flow": 5}, HeadSettings("mean")).eval()
    x = torch.randn(3, 7, 5)
    shuffled = x[:, torch.randperm(7)]
    assert (head(x) - head(shuffled)).abs().min() > 1e-5
    torch.testing.assert_close(mean(x), mean(shuffled))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_last_pooling_takes_the_last_step_of_each_direction(kind, bidirectional):
    torch.manual_seed(0)
    head = Head({"flow": 5}, HeadSettings(kind, 8, 2, bidirectional, "last", 0.0)).eval()
    x = torch.randn(3, 7, 5)
    branch = head.branches[0]
    _, state = branch.time.cells(branch.project(x))
    final = state[0] if kind == "lstm" else state  # (layers * directions, B, 8)
    last = final[-2 if bidirectional else -1 :].transpose(0, 1).flatten(1)
    torch.testing.assert_close(head(x), branch.classify(last)[:, 0])


def test_streams_that_are_fused_late_do_not_meet_before_their_logits():
    torch.manual_seed(0)
    head = Head(WIDTHS, HeadSettings("lstm", hidden=8, dropout=0.0, fusion="late")).eval()
    x = torch.randn(3, 7, 5)
    flow, motion = head.branches[0](x[..., :3]), head.branches[1](x[..., 3:])
    torch.testing.assert_close(head(x), (flow + motion) / 2)


def test_features_are_standardised_by_the_training_clips():
    head = Head({"flow": 2}, HeadSettings("lstm", hidden=4))
    x = torch.randn(150, 4, 2) * torch.tensor([3.0, 0.01]) + torch.tensor([10.0, -1.0])
    x[130:] = 1e6  # not among the training clips
    head.standardise_by(x, torch.arange(130))
    y = (x[:130] - head.mean) / head.std
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.flatten(0, 1).std(0), torch.ones(2), atol=1e-3, rtol=0)


def test_a_feature_that_never_varied_in_training_cannot_take_over_a_verdict():
    torch.manual_seed(0)
    head = Head({"flow": 6}, HeadSettings("lstm", hidden=16, dropout=0.0)).eval()
    x = torch.randn(40, 10, 6)
    x[..., 0] = 0  # a dead channel
    head.standardise_by(x, torch.arange(40))
    awake = x[:1].clone()
    awake[..., 0] = 0.05  # and a new video in which it is not
    with torch.no_grad():
        moved = (awake - head.mean) / head.std - (x[:1] - head.mean) / head.std
    assert moved.abs().max() < 10, "standard deviations, where all other features have three"


def test_crops_cover_a_clip_to_its_both_ends():
    for length, crop in itertools.product(range(1, 20), range(1, 25)):
        seen = torch.zeros(length)

        def look(x, seen=seen):  # x may hold one crop or all of them
            seen += torch.bincount(x[..., 0].flatten().long(), minlength=len(seen))
            return x[:, 0, 0]

        clip_logits(look, torch.arange(length, dtype=torch.float32)[None, :, None], crop)
        assert (seen > 0).all(), (length, crop)
        assert seen.sum() == -(-length // min(crop, length)) * min(crop, length)


def test_a_clip_gets_the_mean_of_its_crops():
    x = torch.tensor([[[1.0], [2.0], [3.0], [8.0]]])
    logits = clip_logits(lambda part: part.sum((1, 2)), x, 2)
    torch.testing.assert_close(logits, torch.tensor([(3.0 + 11.0) / 2]))


def test_an_ensemble_is_the_mean_of_its_heads():
    torch.manual_seed(0)
    heads = [Head(WIDTHS, HeadSettings("lstm", hidden=8)) for _ in range(3)]
    ensemble = Ensemble(heads, crop_length=4).eval()
    x = torch.randn(6, 10, 5)
    expected = sum(clip_logits(head, x, 4) for head in heads) / 3
    torch.testing.assert_close(ensemble(x), expected)


def test_a_verdict_does_not_depend_on_what_else_is_judged_with_it():
    torch.manual_seed(0)
    ensemble = Ensemble(
        [Head(WIDTHS, HeadSettings("lstm", hidden=8)) for _ in range(2)], crop_length=4
    ).eval()
    x = torch.randn(6, 10, 5)
    alone = torch.cat([ensemble(clip[None]) for clip in x])
    torch.testing.assert_close(alone, ensemble(x), rtol=1e-5, atol=1e-6)  # float32
