"""Comparison of two runs on the same test videos."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.evaluation.own_fakes import TESTED_ON_OWN_FAKES, apart, only_own_fakes
from model.run.per_video_scores import score_videos
from model.run.run import Run, cache_of
from model.run.trained_on import check_unseen
from model.statistics.comparison import Comparison, Scored, compare
from model.statistics.metrics import MIN_GROUPS, PValue
from model.training.sequences import load_sequences
from pipeline.cache import Clip
from pipeline.common.errors import NothingUsable, SettingsError
from pipeline.splits.partition import groups

TEST = "test"


@dataclass(frozen=True)
class RunComparison:
    """Comparison of two runs on their common test videos."""

    names: tuple[str, str]  # folders
    videos: int
    scored: int  # videos that both runs score, which are compared
    comparison: Comparison
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self) | {"comparison": self.comparison.as_json()}


def compare_runs(a: Run, b: Run, *, allow_leaks: bool = False) -> RunComparison:
    """Compare two runs on their common test split; videos are matched by the sha256 of their files.

    If that has own fakes and real ones, the own ones are left out.

    Args:
        a: trained run whose cache is at its recorded path.
        b: another one, with other settings, streams or embeddings.
        allow_leaks: compare although one was trained on test videos of the other.

    Raises:
        IntegrityError: a test video of one shares a group key with the other's training.
        SettingsError: the test videos or their labels differ.
        NothingUsable: there is no test video, or none with a score.
    """
    caches = [cache_of(run) for run in (a, b)]
    tests: list[dict[str, Clip]] = [
        {clip.source_sha256: clip for clip in cache.clips if clip.split == TEST} for cache in caches
    ]
    names = [apart(TEST, list(test.values())) for test in tests]
    if any(len(results) > 1 for results in names):  # real fakes alone: no number is of both
        tests = [{k: c for k, c in test.items() if not c.is_own_fake} for test in tests]
    warnings = [
        check_unseen(
            run.folder, test.values(), f"the test split of {other.folder}", allow=allow_leaks
        )
        for run, other, test in ((a, b, tests[1]), (b, a, tests[0]), (a, a, tests[0]))
    ]
    keys = _same_videos(a, b, *tests)
    probabilities = []
    for run, cache, test in zip((a, b), caches, tests, strict=True):
        ids, _, of_run = score_videos(run, load_sequences(cache, run.config.streams, (TEST,)))
        by_id = dict(zip(ids, of_run, strict=True))
        probabilities.append(np.array([by_id[test[key].video] for key in keys]))
    scored = np.isfinite(np.stack(probabilities)).all(axis=0)  # (V,)
    if not scored.any():
        raise NothingUsable(
            f"no test video has a number from both {a.folder} and {b.folder}", "fit again"
        )
    clips = [tests[0][keys[n]] for n in np.flatnonzero(scored)]
    comparison = compare(
        np.array([clip.label for clip in clips], np.int64),
        Scored(probabilities[0][scored], a.config.threshold),
        Scored(probabilities[1][scored], b.config.threshold),
        groups([clip.group_keys for clip in clips]),
    )
    on_own = TESTED_ON_OWN_FAKES if any(map(only_own_fakes, names)) else ""
    all_warnings = [*a.config.warnings, *b.config.warnings, *filter(None, [*warnings, on_own])]
    return RunComparison(
        (str(a.folder), str(b.folder)),
        len(keys),
        len(clips),
        comparison,
        list(dict.fromkeys(all_warnings)),
    )


def _same_videos(a: Run, b: Run, of_a: dict[str, Clip], of_b: dict[str, Clip]) -> list[str]:
    common = [key for key in of_a if key in of_b]
    if not of_a or not of_b:
        empty = b if of_a else a
        raise NothingUsable(f"{empty.folder} has no test split", "extract with --test 0.2")
    only_a, only_b = len(of_a) - len(common), len(of_b) - len(common)
    if only_a or only_b:
        raise SettingsError(
            f"the test splits of {a.folder} and {b.folder} differ: {len(common)} videos are in "
            f"both, {only_a} only in the first, {only_b} only in the second",
            "fit both on caches of the same corpus with the same split",
        )
    n_relabelled = sum(of_a[key].label != of_b[key].label for key in common)
    if n_relabelled:
        raise SettingsError(
            f"{n_relabelled} of the {len(common)} test videos that {a.folder} and {b.folder} have "
            "in common have other labels there",
            "fit both on caches of the same corpus",
        )
    return common


def comparison_table(result: RunComparison) -> str:
    """Format a comparison as plain text."""
    a, b = result.names
    comparison = result.comparison
    lines = [f"WARNING: {warning}" for warning in result.warnings]
    lines += [
        f"{result.videos} test videos in both, {result.scored} of them scored by both",
        f"a: {a}",
        f"b: {b}",
        f"  {'':10}" + "".join(f"{name:22}" for name in ("a", "b", "a - b")) + "DeLong p  p",
    ]
    rows = {
        "auc_roc": (comparison.auc_roc, comparison.auc_delong_p, comparison.auc_p),
        "accuracy": (comparison.accuracy, None, comparison.accuracy_p),
    }
    for name, (values, delong_p, p) in rows.items():
        shown = "".join(f"{value!s:22}" for value in values)
        lines.append(f"  {name:10}{shown}{_p(delong_p):10}{_p(p)}")
    return "\n".join(
        [
            *lines,
            "in brackets: 95% intervals; they and p are of a paired bootstrap over identities, and",
            f"left out where there are fewer than {MIN_GROUPS} groups of linked videos;",
            "DeLong's test takes every video for one of somebody else",
        ]
    )


def _p(value: float | None) -> str:
    return str(PValue(value, None, None, 0))
