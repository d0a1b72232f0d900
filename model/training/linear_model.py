"""Fit of the statistics head on one fold: logistic regressions of falling regularisation."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from model.settings import TrainingSettings
from model.training.heads import CLIPS_AT_ONCE, Head, LinearBranch
from model.training.over_time import OVER_TIME, over_time
from model.training.sequences import Sequences

# To choose from: scikit-learn's C, a clip weighing 1, times the number of statistics.
STRENGTHS = (0.15, 0.5, 1.5)
MAX_ITERATIONS = 2000

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RegularisationPath:
    """Statistics heads of one fold, one for each of the S `STRENGTHS`."""

    head: dict[str, torch.Tensor]  # state of a head but for its coefficients
    coefficients: torch.Tensor  # (S, 5 D) float64
    intercepts: torch.Tensor  # (S,) float64
    train_logits: torch.Tensor  # (S, n) float64
    val_logits: torch.Tensor  # (S, V) float64

    def choose(self, n: int, widths: dict[str, int], settings: TrainingSettings) -> Head:
        """Return the head of strength n."""
        head = Head(widths, settings)
        head.load_state_dict(self.head, strict=False)
        (branch,) = head.branches
        assert isinstance(branch, LinearBranch)
        with torch.no_grad():
            branch.classify.weight.copy_(self.coefficients[n])
            branch.classify.bias.copy_(self.intercepts[n])
        return head.eval()


def n_statistics(head: Head) -> int:
    """Return the number of statistics that a head weighs."""
    return len(OVER_TIME) * len(head.mean)


def fit_path(
    data: Sequences, train: Indices, val: Indices, weights: torch.Tensor, settings: TrainingSettings
) -> RegularisationPath:
    """Fit a logistic regression for each strength to statistics of the training clips.

    Clips weigh as their class in ``weights``, (2,). ValueError if a clip has NaN where there may be
    none.
    """
    head = Head(data.widths, settings)
    head.standardise_by(data.x, torch.from_numpy(train))
    (branch,) = head.branches
    assert isinstance(branch, LinearBranch)
    copies = (data.x, *data.copies)
    seen = torch.cat([_statistics(head, x, data, train) for x in copies])  # (n copies, 5, D)
    branch.standardise_by(seen)
    features = branch.standardised(seen).flatten(1)  # (n copies, 5 D)
    y = np.tile(data.labels[train], len(copies))
    weight = weights.double().numpy()[y] / len(copies)
    coefficients, intercepts = _fit(features.numpy(), y, weight)

    def logits(features: torch.Tensor) -> torch.Tensor:
        return (features @ coefficients.T + intercepts).T  # (S, clips)

    unseen = branch.standardised(_statistics(head, data.x, data, val)).flatten(1)
    state = {key: value for key, value in head.state_dict().items() if "classify" not in key}
    return RegularisationPath(
        state, coefficients, intercepts, logits(features[: len(train)]), logits(unseen)
    )


def _statistics(head: Head, x: torch.Tensor, data: Sequences, rows: Indices) -> torch.Tensor:
    """Compute statistics over time of clips: (clips, 5, D) float64."""
    found = []
    for batch in torch.from_numpy(rows).split(CLIPS_AT_ONCE):  # type: ignore[no-untyped-call]
        lost = head.lacks_numbers(x[batch])
        if lost.any():
            clip = data.clips[int(batch[lost][0])]
            raise ValueError(f"clip {clip.id} has embeddings that are no numbers")
        found.append(over_time(head.standardised(x[batch]).double()))
    return torch.cat(found)


def _fit(
    features: npt.NDArray[np.float64], y: Indices, weight: npt.NDArray[np.float64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return coefficients (S, 5 D) and intercepts (S,)."""
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    coefficients, intercepts = [], []
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            model.set_params(C=strength / features.shape[1]).fit(features, y, sample_weight=weight)
            coefficients.append(torch.from_numpy(model.coef_[0].copy()))
            intercepts.append(torch.from_numpy(model.intercept_.copy()))
    return torch.stack(coefficients), torch.cat(intercepts)
