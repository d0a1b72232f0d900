"""Table of all backbones: length of their embeddings, parameters, and time on a CPU."""

import csv
from importlib import resources

from features.architectures import VIDEO

FILE = "backbones.csv"  # written by `python -m benchmarks.backbones`


def entries() -> list[dict[str, str]]:
    """Return a row of `FILE` for each backbone, image networks first.

    Columns: ``name``; ``dimension`` of an embedding; ``parameters`` in millions, without the
    classifier; ``milliseconds`` for an image or a window of 16; their ``precision``.
    """
    text = resources.files("features").joinpath(FILE).read_text(encoding="ascii")
    return list(csv.DictReader(text.splitlines()))


def catalogue() -> str:
    """Return the table as plain text."""
    lines = [f"{'name':20} {'numbers':>8} {'parameters':>11} {'ms':>8}"]
    for row in entries():
        unit = "a window of 16" if row["name"] in VIDEO else "an image"
        lines.append(
            f"{row['name']:20} {row['dimension']:>8} {row['parameters']:>9} M "
            f"{row['milliseconds']:>8} {unit}, {row['precision']}"
        )
    lines.append("Measured on two cores of an AMD EPYC with bfloat16, at the size each one takes.")
    return "\n".join(lines)
