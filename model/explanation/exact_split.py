"""Exact split of the statistics head's verdict into moments, numbers and statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from features.motion import NAMES
from model.run.run import Config, Run
from model.training.heads import Head, LinearBranch, covering_crops
from model.training.over_time import OVER_TIME, SHIFTED, over_time
from model.training.sequences import columns_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """Contributions to the calibrated log-odds of a clip, which add up to it.

    Both arrays sum to the same, and with the constant to the log-odds.
    """

    moments: Floats  # (L, D)
    statistics: Floats  # (5, D), in the order of `OVER_TIME`
    constant: float  # log-odds of a clip whose every statistic is at its training mean

    @property
    def log_odds(self) -> float:
        """Calibrated log-odds of being fake."""
        return float(self.moments.sum()) + self.constant


class Term(NamedTuple):
    """Contribution of one column, or of all numbers of an embedding."""

    stream: str
    depth: str  # of a trajectory, else empty
    column: str
    log_odds: float


def is_exact(run: Run) -> bool:
    """Check whether `exact_split` is for this run: whether its head is a linear model."""
    return run.config.training.head == "statistics"


def exact_split(run: Run, x: torch.Tensor) -> Split:
    """Split the log-odds of one clip, (L, D) float32, by the statistics head.

    A statistic scales with its sequence, so that it is the sum over steps of gradient times
    distance from the sequence's own mean (Euler's theorem), plus the statistic of a still sequence
    at that mean. The latter, less the statistic's training mean, is divided equally over the steps
    at which the number is defined. The parts of a clipped statistic are scaled in proportion.
    """
    moments = torch.zeros(x.shape, dtype=torch.float64)
    statistics = torch.zeros(len(OVER_TIME), x.shape[1], dtype=torch.float64)
    constant = torch.zeros((), dtype=torch.float64)
    steps = covering_crops(len(x), run.ensemble.crop_length)  # (n, L')
    for head in run.ensemble.heads:
        assert isinstance(head, Head)
        (branch,) = head.branches
        assert isinstance(branch, LinearBranch)
        with torch.no_grad():
            z = head.standardised(x[steps]).double()  # (n, L', D)
        by_step, by_statistic = _split_crops(branch, z)
        moments.index_add_(0, steps.flatten(), by_step.flatten(0, 1))
        statistics += by_statistic.sum(0)
        constant += len(steps) * branch.classify.bias.detach()[0]
    n = len(steps) * len(run.ensemble.heads) * run.config.temperature
    return Split((moments / n).numpy(), (statistics / n).numpy(), float(constant) / n)


def _split_crops(branch: LinearBranch, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the logits of crops (n, L, D), without the bias: by step (n, L, D), and (n, 5, D)."""
    z = z.requires_grad_()
    with torch.enable_grad():
        values = over_time(z)  # (n, 5, D)
        with torch.no_grad():
            parts = branch.classify.weight.reshape(branch.mean.shape) * branch.standardised(values)
            slopes = (parts / (values - branch.mean)).nan_to_num(0, 0, 0)
        (gradient,) = torch.autograd.grad((slopes * values.nan_to_num(0)).sum(), z)
    z = z.detach()
    defined = ~z.isnan()
    mean = values.detach()[:, 0].nan_to_num(0)  # (n, D)
    still = torch.tensor(SHIFTED)[:, None] * mean[:, None] - branch.mean  # (n, 5, D)
    shared = (slopes * still).sum(1) / defined.sum(1).clamp(min=1)  # (n, D)
    by_step = gradient * (z - mean[:, None]).nan_to_num(0) + shared[:, None] * defined
    return by_step, parts


def mean_split(splits: Sequence[Split]) -> Split:
    """Average the splits of the clips of a video, whose logits are averaged as well."""
    return Split(
        np.mean([split.moments for split in splits], axis=0),
        np.mean([split.statistics for split in splits], axis=0),
        splits[0].constant,
    )


def terms_of(config: Config, split: Split) -> list[Term]:
    """Return the contribution of each column of descriptors and of each embedding as a whole.

    The largest come first. With the constant they add up to the log-odds.
    """
    by_column = split.moments.sum(0)  # (D,)
    terms = []
    for stream, columns in columns_of(config.widths).items():
        values = by_column[columns].tolist()
        if stream == "trajectory":
            for name, value in zip(config.trajectory, values, strict=True):
                of, depth, column = name.split(maxsplit=2)
                terms.append(Term(of, depth, column, value))
        elif stream == "motion":
            terms += [Term(stream, "", name, v) for name, v in zip(NAMES, values, strict=True)]
        else:
            terms.append(Term(stream, "", f"embedding, {len(values)} numbers", sum(values)))
    return sorted(terms, key=lambda term: -abs(term.log_odds))


def by_depth(terms: Sequence[Term]) -> dict[str, float]:
    """Sum terms by stream and depth, such as ``flow, depth 4``."""
    sums: dict[str, float] = {}
    for term in terms:
        name = f"{term.stream}, depth {term.depth}" if term.depth else term.stream
        sums[name] = sums.get(name, 0.0) + term.log_odds
    return dict(sorted(sums.items()))


def by_statistic(split: Split) -> dict[str, float]:
    """Return statistic over time → its contribution; with the constant they add up."""
    return dict(zip(OVER_TIME, split.statistics.sum(1).tolist(), strict=True))
