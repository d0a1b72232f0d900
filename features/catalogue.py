"""The list of backbones: how long their embeddings are, and what they cost."""

import csv
import io
from dataclasses import dataclass
from importlib import resources

from features.architectures import VIDEO

FILE = "backbones.csv"  # `python -m benchmarks.backbones` measures it


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: torchvision's.
        dimension: D, of an embedding.
        parameters: millions, without the classifier.
        milliseconds: for a picture, or a window of 16, on two cores of an AMD EPYC with bfloat16.
        precision: that these were measured in.
    """

    name: str
    dimension: int
    parameters: float
    milliseconds: float
    precision: str


def entries() -> list[Entry]:
    """All backbones, networks of pictures first."""
    text = resources.files("features").joinpath(FILE).read_text(encoding="ascii")
    return [
        Entry(
            row["name"],
            int(row["dimension"]),
            float(row["parameters"]),
            float(row["milliseconds"]),
            row["precision"],
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def catalogue() -> str:
    """All backbones as a table in plain text."""
    lines = [f"{'name':20} {'numbers':>8} {'parameters':>11} {'ms':>8}"]
    for entry in entries():
        unit = "a window of 16" if entry.name in VIDEO else "a picture"
        lines.append(
            f"{entry.name:20} {entry.dimension:8} {entry.parameters:9.1f} M "
            f"{entry.milliseconds:8.1f} {unit}, {entry.precision}"
        )
    lines.append("Measured on two cores of an AMD EPYC with bfloat16, at the size each one takes.")
    return "\n".join(lines)
