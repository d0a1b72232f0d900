"""How much each stream adds to a verdict."""

import torch

from model.heads import Head, clip_logits
from model.run import Run


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
    ends = torch.tensor(list(run.config.widths.values())).cumsum(0).tolist()
    keep = torch.ones(len(ends) + 1, x.shape[-1])  # the last leaves nothing out
    for row, (stream, end) in enumerate(zip(run.config.streams, ends, strict=True)):
        keep[row, end - run.config.widths[stream] : end] = 0

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
    return {s: whole - rest for s, rest in zip(run.config.streams, without, strict=True)}
