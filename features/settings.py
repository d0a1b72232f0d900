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
    """Settings of embedding.

    Attributes:
        streams: some of `STREAMS`.
        flow_scale: motion that is white (255) in every flow map, px/frame; None leaves each map
            scaled to its own range.
        every: sampling step, see `Backbone.rows`.
        augment: additional copies of each stream for training, some of `COPIES`.
    """

    streams: tuple[str, ...] = STREAMS
    # AUC of the LSTM over six demo corpora: None 0.954, 2 0.941, 4 0.954, 8 0.972, 16 0.965.
    flow_scale: float | None = 8.0
    every: int = 1
    augment: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "Options":
        """Return the options in the settings of an embedding cache."""
        values = {field.name: settings[field.name] for field in dataclasses.fields(cls)}
        values |= {name: tuple(values[name]) for name in ("streams", "augment")}
        return cls(**values)


def weights_warning(settings: Mapping[str, Any]) -> str:
    """Return a warning if an embedding cache is of an untrained backbone, else an empty string."""
    if not str(settings["weights"]).startswith("random:"):
        return ""
    return (
        f"The backbone {settings['backbone']} has {settings['weights']} weights: it was never "
        "trained. Results are for trying out the program only."
    )
