"""What is embedded, and how; a command's ``--help`` waits for nothing that is slow to import."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STREAMS = ("flow", "frames")
COPIES = ("flip",)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """What is embedded, and how.

    Attributes:
        streams: some of `STREAMS`.
        flow_scale: what 255 stands for in the flow maps that are embedded, in pixels per frame;
            None leaves each map scaled to its own range.
        every: embed every so many pictures; see `Backbone.rows`.
        augment: further copies of each stream, some of `COPIES`, to train with.
    """

    streams: tuple[str, ...] = STREAMS
    flow_scale: float | None = 8.0  # `python -m benchmarks.flow_scale` compares scales
    every: int = 1
    augment: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "Options":
        """The options among the settings that an embedding cache stores."""
        values = {field.name: settings[field.name] for field in dataclasses.fields(cls)}
        values |= {name: tuple(values[name]) for name in ("streams", "augment")}
        return cls(**values)


def weights_warning(settings: Mapping[str, Any]) -> str:
    """What to say wherever a result rests on an untrained backbone, or nothing.

    Args:
        settings: of an embedding cache.
    """
    if not str(settings["weights"]).startswith("random:"):
        return ""
    return (
        f"The backbone {settings['backbone']} has {settings['weights']} weights: it was never "
        "trained. Results are for trying out the program only."
    )
