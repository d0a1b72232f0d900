"""Settings of an embedding; importing them does not import PyTorch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STREAMS = ("flow", "frames")
COPIES = ("flip",)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """What is embedded of each clip.

    Attributes:
        streams: some of `STREAMS`.
        flow_scale: motion that is white (255) in every flow map, in pixels per frame; None leaves
            each map scaled to its own range.
        every: sampling step in images; for video networks the step between windows, see
            `Backbone.rows`.
        augment: additional copies of each stream, some of `COPIES`, for training.
    """

    streams: tuple[str, ...] = STREAMS
    flow_scale: float | None = 8.0  # `python -m benchmarks.flow_scale` compares scales
    every: int = 1
    augment: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "Options":
        """Return the options stored in the settings of an embedding cache."""
        values = {field.name: settings[field.name] for field in dataclasses.fields(cls)}
        values |= {name: tuple(values[name]) for name in ("streams", "augment")}
        return cls(**values)


def weights_warning(settings: Mapping[str, Any]) -> str:
    """Return a warning if a backbone was never trained, else an empty string.

    Args:
        settings: of an embedding cache.
    """
    if not str(settings["weights"]).startswith("random:"):
        return ""
    return (
        f"The backbone {settings['backbone']} has {settings['weights']} weights: it was never "
        "trained. Results are for trying out the program only."
    )
