"""Statistics of sequences over time, which skip steps where a number is undefined (NaN)."""

import torch

OVER_TIME = ("mean", "standard deviation", "5th percentile", "95th percentile", "mean change")
PERCENTILES = (0.05, 0.95)
SHIFTED = (True, False, True, True, False)  # those that follow a constant added to all steps
MIN_VARIANCE = 1e-24  # keeps the gradient of the standard deviation finite


def over_time(x: torch.Tensor) -> torch.Tensor:
    """Compute `OVER_TIME` of sequences (B, L, W): (B, 5, W), differentiable.

    The standard deviation is the population's, percentiles are interpolated linearly as by NumPy,
    and the change is absolute, from step to step. A statistic without a number is NaN: the change
    if no two consecutive steps are defined, the others if no step is.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 3.0, torch.nan])[None, :, None]
        >>> over_time(x)[0, :, 0].round(decimals=3)
        tensor([1.3330, 1.2470, 0.1000, 2.8000, 1.5000])
    """
    defined = ~x.isnan()
    n = defined.sum(1)  # (B, W)
    filled = torch.where(defined, x, 0)
    mean = filled.sum(1) / n.clamp(min=1)
    squares = torch.where(defined, filled - mean[:, None], 0).square()
    variance = squares.sum(1) / n.clamp(min=1)
    ordered = torch.where(defined, x, torch.inf).sort(dim=1).values
    both = defined[:, 1:] & defined[:, :-1]
    steps = torch.where(both, filled[:, 1:] - filled[:, :-1], 0).abs()
    found = [
        mean,
        variance.clamp(min=MIN_VARIANCE).sqrt(),
        *(_percentile(ordered, n.sub(1).clamp(min=0), share) for share in PERCENTILES),
        steps.sum(1) / both.sum(1).clamp(min=1),
    ]
    known = torch.stack([n > 0] * 4 + [both.any(1)], dim=1)
    return torch.where(known, torch.stack(found, dim=1), torch.nan)


def _percentile(ordered: torch.Tensor, last: torch.Tensor, share: float) -> torch.Tensor:
    """Interpolate between steps (B, L, W) in ascending order, the ``last`` (B, W) of them."""
    place = share * last.to(ordered.dtype)
    below = place.floor().long()
    above = torch.minimum(below + 1, last)
    low, high = (ordered.gather(1, index[:, None])[:, 0] for index in (below, above))
    return low + (place - below) * (high - low)
