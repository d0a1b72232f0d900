"""Own fakes and real ones apart: no number is of both, each is against the same real videos."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.cache import Clip

SUFFIX = " on own fakes"  # of the name of a split, in messages, pages and metrics.json
TESTED_ON_OWN_FAKES = (
    "It is tested on own fakes alone, made of real videos as those it was trained on: this does "
    "not tell how it does on real fakes."
)
Key = TypeVar("Key")


def on_own_fakes(split: str) -> str:
    """Return the name of a split's results on own fakes."""
    return f"{split}{SUFFIX}"


def apart(split: str, clips: Sequence[Clip]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return result -> mask of clips, (N,): real videos with real fakes, and with own ones.

    Without own fakes all are in one result, which is named as the split.
    """
    real = np.array([not clip.label for clip in clips], bool)
    own = np.array([clip.is_own_fake for clip in clips], bool)
    if not own.any():
        return {split: np.ones(len(clips), bool)}
    results = {on_own_fakes(split): real | own}
    return results if (real | own).all() else {split: ~own} | results


def only_own_fakes(results: Mapping[str, Key]) -> bool:
    """Return whether all results are on own fakes."""
    return bool(results) and all(name.endswith(SUFFIX) for name in results)
