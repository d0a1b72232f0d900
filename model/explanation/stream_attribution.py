"""How much each stream adds to a verdict."""

import torch

from model.run.run import Run
from model.training.heads import Head, clip_logits
from model.training.sequences import columns_of


def stream_shares(run: Run, x: torch.Tensor) -> dict[str, float]:
    """What each stream adds to the calibrated log-odds of being fake.

    The difference to the log-odds without it: with its training mean at every moment instead. With
    late fusion this is exactly the part of the stream's own branch, and the parts add up; with
    early fusion they need not, as what a stream says may hang on another one.

    Args:
        run: a trained run.
        x: (B, L, D) float32, the clips of one video.

    Returns:
        stream → log-odds, positive towards fake.
    """
    columns = columns_of(run.config.widths)
    keep = torch.ones(len(columns) + 1, x.shape[-1])  # the last leaves nothing out
    for row, left_out in enumerate(columns.values()):
        keep[row, left_out] = 0

    def log_odds(kept: torch.Tensor) -> float:
        def masked(head: Head, windows: torch.Tensor) -> torch.Tensor:
            return head.logits(head.standardised(windows) * kept)

        window = run.ensemble.window
        of_heads = [
            clip_logits(lambda windows, head=head: masked(head, windows), x, window)  # type: ignore[misc]
            for head in run.ensemble.heads
        ]
        return float(torch.stack(of_heads).double().mean()) / run.config.temperature

    with torch.inference_mode():
        *without, whole = [log_odds(kept) for kept in keep]
    return {s: whole - rest for s, rest in zip(columns, without, strict=True)}
