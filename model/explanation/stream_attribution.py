"""Contribution of each stream to a verdict."""

from functools import partial

import torch

from model.explanation.exact_split import exact_split, is_exact, mean_split
from model.run.run import Run
from model.training.heads import Head, clip_logits
from model.training.sequences import columns_of


def stream_shares(run: Run, x: torch.Tensor) -> dict[str, float]:
    """Return stream → contribution to the calibrated log-odds of clips of a video, (B, L, D).

    For the statistics head it is the stream's part of the sum. For others it is the difference from
    the log-odds with the stream at its training mean. With late fusion this is the part of the
    stream's own branch, and contributions add up; with early fusion they need not, as streams may
    depend on one another.
    """
    columns = columns_of(run.config.widths)
    if is_exact(run):
        parts = mean_split([exact_split(run, clip) for clip in x]).moments.sum(0)  # (D,)
        return {stream: float(parts[part].sum()) for stream, part in columns.items()}
    masks = torch.ones(len(columns) + 1, x.shape[-1])  # the last leaves nothing out
    for row, left_out in enumerate(columns.values()):
        masks[row, left_out] = 0

    def log_odds(mask: torch.Tensor) -> float:
        def masked(head: Head, crops: torch.Tensor) -> torch.Tensor:
            return head.logits(head.standardised(crops) * mask)

        logits = [
            clip_logits(partial(masked, head), x, run.ensemble.crop_length)  # type: ignore[arg-type]
            for head in run.ensemble.heads
        ]
        return float(torch.stack(logits).double().mean()) / run.config.temperature

    with torch.inference_mode():
        *without, whole = [log_odds(mask) for mask in masks]
    return {s: whole - rest for s, rest in zip(columns, without, strict=True)}
