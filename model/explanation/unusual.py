"""How unusual a video is among real ones: scores that never saw a fake.

Four scores, each compared with real training videos by folds that did not see them:

- ``motion`` and ``trajectory``: distance of the descriptors from a density of real videos; ours.
- ``stall``: see `model.explanation.stall`.
- ``d3``: how little the length of the steps between embeddings changes. Zheng et al., D3, 2025
  (arXiv 2508.00701): the standard deviation over time of the change of length is low in generated
  videos. It is not trained at all.

STALL and D3 depend on the time step. A clip is thinned to the whole number of rows nearest to
1/8 s, so that all its steps are equally long: 24, 25, 30 frames/s become 8, 8.3, 7.5.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.motion import NAMES
from model.explanation.anomaly import (
    UNUSUAL_QUANTILE,
    Anomaly,
    Floats,
    Indices,
    anomaly_of,
    arrays_of,
    fit_densities,
    motion_of,
    read_arrays,
    real_folds,
    real_reference,
    share_below,
    write_arrays,
)
from model.explanation.stall import (
    Gaussian,
    Stall,
    fit_gaussian,
    log_likelihoods,
    steps_of,
)
from model.run.per_video_scores import by_video
from model.training.sequences import Sequences, trajectory_columns
from pipeline.cache import Cache, Clip
from pipeline.settings import Settings

Embedded = Mapping[str, npt.NDArray[Any]]  # of one clip, as `embed_clip` returns it

SCORES = ("motion", "trajectory", "stall", "d3")
COMBINED = "combined"  # the mean of the quantiles of all scores
EXPLAINED = {
    "motion": "how far the motion descriptors are from those of real videos",
    "trajectory": "how far the steps of the backbone's maps are from those of real videos",
    "stall": "how unlikely frames and steps of the embedding are (STALL, Ben Hayun et al., 2026)",
    "d3": "how little the length of the embedding's steps changes (D3, Zheng et al., 2025)",
    COMBINED: "the mean of the quantiles above",
}
UNUSUAL, USUAL = "unusual", "usual"
STEPS_PER_SECOND = 8
MIN_STEPS_PER_SECOND = 6  # of what thinning can give; slower rows have neither STALL nor D3
MIN_ROWS_D3 = 4
MAX_ROWS_FITTED = 20_000  # of all clips together, to bound time and memory


@dataclass(frozen=True)
class Unusual:
    """The scores of a run. A run of an earlier version, or a cache without them, lacks some."""

    motion: Anomaly
    trajectory: Anomaly | None = None
    stall: Stall | None = None
    stream: str = ""  # whose embeddings STALL and D3 look at
    # STALL's, D3's and the combined values of real training videos, ascending, by the fold that did
    # not see them.
    references: Mapping[str, Floats] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that there are, without the combined one."""
        return tuple(name for name in SCORES if len(self.reference(name)))

    @property
    def streams(self) -> frozenset[str]:
        """Streams to embed for the scores."""
        names = self.trajectory.names if self.trajectory else ()
        return frozenset(filter(None, (self.stream, *(name.split()[0] for name in names))))

    def reference(self, name: str) -> Floats:
        """Return the values of real training videos, ascending; empty if there is no such score."""
        if density := self._densities.get(name):
            return density.reference
        return self.references.get(name, np.empty(0))

    def threshold(self, name: str) -> float:
        """Return the value that `UNUSUAL_QUANTILE` of the real videos do not reach."""
        return float(np.quantile(self.reference(name), UNUSUAL_QUANTILE))

    def of_clip(self, embedded: Embedded, rate: float) -> dict[str, float]:
        """Return score → value of a clip, higher if more unusual; NaN if unknown.

        ``rate`` is that of the clip's frames per second.
        """
        found = {
            name: float(density.distances([embedded[name]])[0])
            for name, density in self._densities.items()
            if name in embedded
        }
        if self.stream in embedded:
            found |= self._of_rows(thinned(embedded[self.stream], embedded["rows"], rate))
        return {name: found[name] for name in self.names if name in found}

    def of_videos(self, cache: Cache, clips: Sequence[Clip]) -> dict[str, Floats]:
        """Return score → values of the V videos of some clips of a cache, (V,), as `by_video` does.

        `COMBINED` is among them if the cache has what all scores need; unlike that of `quantiles`
        it is the mean itself.
        """
        names = self.available(cache)
        found = {
            name: density.distances(cache.read(clip, name) for clip in clips)
            for name, density in self._densities.items()
            if name in names
        }
        if over_embeddings := [name for name in names if name not in found]:
            read = _reader(cache, self.stream)
            of_clips = [self._of_rows(read(clip)) for clip in clips]
            found |= {name: np.array([one[name] for one in of_clips]) for name in over_embeddings}
        of_videos = {name: by_video(clips, found[name])[2] for name in names}
        if COMBINED in self.references and names == self.names:
            of_videos[COMBINED] = self._combined(of_videos)
        return of_videos

    @property
    def _densities(self) -> dict[str, Anomaly]:
        return {"motion": self.motion} | (
            {"trajectory": self.trajectory} if self.trajectory else {}
        )

    def _of_rows(self, z: Floats) -> dict[str, float]:
        """Return STALL's and D3's value of the thinned embeddings of a clip, (M, D)."""
        found = {"d3": steadiness(z)}
        if self.stall:
            likely = log_likelihoods(self.stall.frames, self.stall.steps, z)
            found["stall"] = float(unlikelihood(self.stall, likely))
        return found

    def _combined(self, values: Mapping[str, Floats]) -> Floats:
        """Return the means of the known quantiles of V videos, (V,)."""
        ranks = [share_below(self.reference(name), values[name]) for name in values]
        return np.array([_mean_known(one) for one in zip(*ranks, strict=True)])

    def available(self, cache: Cache) -> tuple[str, ...]:
        """Return the names of the scores for which a cache has what they need."""
        there = {"motion": True}
        if self.trajectory:
            there["trajectory"] = trajectory_columns(cache) == self.trajectory.names
        embedded = self.stream in cache.settings["streams"]
        return tuple(name for name in self.names if there.get(name, embedded))

    def quantiles(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return score → share of real training videos less unusual than a video, and `COMBINED`.

        Unknown scores are left out.
        """
        found = {
            name: float(share_below(self.reference(name), value))
            for name, value in values.items()
            if not np.isnan(value)
        }
        if found and COMBINED in self.references:
            mean = np.mean(list(found.values()))
            found[COMBINED] = float(share_below(self.references[COMBINED], mean))
        return found

    def of_video(self, clips: Sequence[Embedded], rate: float) -> dict[str, float]:
        """Return the `quantiles` of a video from its embedded clips."""
        values = [self.of_clip(clip, rate) for clip in clips]
        return self.quantiles(
            {name: _mean_known([one[name] for one in values]) for name in values[0]}
        )


def few_real_warning(n_real: int) -> str:
    """Return a warning if `UNUSUAL_QUANTILE` cannot be measured on so few videos, or nothing."""
    if n_real * (1 - UNUSUAL_QUANTILE) >= 1 - 1e-9:
        return ""
    return (
        f"{100 * UNUSUAL_QUANTILE:g}% of the real training videos cannot be told on {n_real}: real "
        f"ones will be called unusual more often than {100 * (1 - UNUSUAL_QUANTILE):.2g}% of the "
        "time."
    )


def is_unusual(quantiles: Mapping[str, float]) -> bool:
    """Return whether a video is more unusual than `UNUSUAL_QUANTILE` of the real ones.

    By the combined score; a run of an earlier version has that of motion alone.
    """
    decisive = COMBINED if COMBINED in quantiles else "motion"
    return quantiles[decisive] > UNUSUAL_QUANTILE


def thinned(z: npt.NDArray[Any], rows: npt.NDArray[np.int64], rate: float) -> Floats:
    """Return the rows of a clip that are about 1/8 s apart: (T', D) to (M, D).

    Args:
        z: embeddings.
        rows: first and last frame of each, (T', 2).
        rate: frames per second.

    None are left if they are further than `MIN_STEPS_PER_SECOND` apart.
    """
    if len(z) < 2:
        return np.empty((0, z.shape[1]))
    per_second = rate / float(np.diff(rows[:, 0]).mean())
    stride = max(1, round(per_second / STEPS_PER_SECOND))
    if per_second / stride < MIN_STEPS_PER_SECOND:
        return np.empty((0, z.shape[1]))
    return z[::stride].astype(np.float64)


def steadiness(z: Floats) -> float:
    """Return D3's score with its sign changed, so that higher is more unusual; NaN if too short."""
    if len(z) < MIN_ROWS_D3:
        return np.nan
    return -float(np.diff(np.linalg.norm(np.diff(z, axis=0), axis=1)).std())


def unlikelihood(stall: Stall, likely: Floats) -> Floats:
    """Return STALL's score of log-likelihoods, (..., 2), with 1 less it: the most unusual is 1."""
    frames = share_below(stall.frame_reference, likely[..., 0])
    steps = share_below(stall.step_reference, likely[..., 1])
    return 1 - (frames + steps) / 2


def fit_unusual(
    cache: Cache,
    training: Sequences,
    folds: Sequence[tuple[Indices, Indices]],
    motion: Sequence[npt.NDArray[Any]],
) -> Unusual:
    """Fit all scores that a cache allows, per fold, to the real training clips of each."""
    values: dict[str, Floats] = {}  # score → (N,) by the fold that did not see the clip
    density, values["motion"] = fit_densities(motion, training, folds, NAMES, moments=True)
    trajectory = None
    if names := trajectory_columns(cache):
        rows = (cache.read(clip, "trajectory") for clip in training.clips)
        trajectory, values["trajectory"] = fit_densities(rows, training, folds, names)
        if not len(trajectory.reference):
            trajectory = None
    streams = cache.settings["streams"]
    stream = "frames" if "frames" in streams else streams[0]
    stall, values["stall"], values["d3"] = _fit_over_embeddings(cache, stream, training, folds)
    references = {name: real_reference(training, values[name]) for name in ("stall", "d3")}
    references = {name: known for name, known in references.items() if len(known)}
    found = Unusual(density, trajectory, stall, stream if references else "", references)
    of_videos = {name: by_video(training.clips, values[name])[2] for name in found.names}
    combined = found._combined(of_videos)
    combined = np.sort(combined[~np.isnan(combined)])
    return dataclasses.replace(found, references=references | {COMBINED: combined})


def _fit_over_embeddings(
    cache: Cache, stream: str, training: Sequences, folds: Sequence[tuple[Indices, Indices]]
) -> tuple[Stall | None, Floats, Floats]:
    """Fit STALL; return it, None if all clips are too short, and N values of it and of D3."""
    read, clips = _reader(cache, stream), training.clips
    pairs = real_folds(training, folds)
    real = np.unique(np.concatenate([rows for pair in pairs for rows in pair]))
    most = max(2, MAX_ROWS_FITTED // len(real))
    frames, steps = {}, {}
    for n in real.tolist():
        z = read(clips[n])
        frames[n], steps[n] = _evenly(z, most), _evenly(steps_of(z), most)
    likely, d3 = np.full((len(clips), 2), np.nan), np.full(len(clips), np.nan)
    gaussians: list[tuple[Gaussian, Gaussian]] = []
    for seen, unseen in pairs:
        of_frames = np.concatenate([frames[n] for n in seen.tolist()])
        of_steps = np.concatenate([steps[n] for n in seen.tolist()])
        fitted = None
        if min(len(of_frames), len(of_steps)) > 1:
            fitted = fit_gaussian(of_frames), fit_gaussian(of_steps)
            gaussians.append(fitted)
        for n in unseen.tolist():
            z = read(clips[n])
            d3[n] = steadiness(z)
            if fitted:
                likely[n] = log_likelihoods(fitted[:1], fitted[1:], z)
    if np.isnan(likely).all():
        return None, likely[:, 0], d3
    known = np.sort(likely[~np.isnan(likely).any(1)], axis=0)
    stall = Stall(
        tuple(of_frames for of_frames, _ in gaussians),
        tuple(of_steps for _, of_steps in gaussians),
        *known.T,
    )
    return stall, unlikelihood(stall, likely), d3


def _evenly(x: Floats, most: int) -> npt.NDArray[np.float32]:
    """Return at most so many rows, evenly spread."""
    rows = np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(np.int64)
    return x[rows].astype(np.float32)


def _reader(cache: Cache, stream: str) -> Callable[[Clip], Floats]:
    """Return a function that reads a clip's thinned embeddings, (M, D).

    An embedding cache has no timestamps: the rate of the file or, if it was resampled, that of the
    extraction stands for them.
    """
    settings = Settings.from_json(json.loads(cache.attrs["source_settings"]))

    def read(clip: Clip) -> Floats:
        embeddings, rows = cache.read(clip, stream), cache.read(clip, "rows")
        return thinned(embeddings, rows, settings.rate(clip.fps))

    return read


def _mean_known(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def save_unusual(folder: Path, unusual: Unusual) -> None:
    """Write ``anomaly.npz`` into the folder of a run."""
    arrays = arrays_of(unusual.motion) | {"stream": np.array(unusual.stream)}
    if unusual.trajectory:
        stored = arrays_of(unusual.trajectory)
        arrays |= {f"trajectory_{key}": array for key, array in stored.items()}
    if stall := unusual.stall:
        for kind in ("frames", "steps"):
            for name in Gaussian.__dataclass_fields__:
                parts = [getattr(gaussian, name) for gaussian in getattr(stall, kind)]
                for n, part in enumerate(parts):  # folds may differ in the number of components
                    arrays[f"stall_{kind}_{name}_{n}"] = part
        arrays["stall_frame_reference"] = stall.frame_reference
        arrays["stall_step_reference"] = stall.step_reference
    arrays |= {f"{name}_reference": values for name, values in unusual.references.items()}
    write_arrays(folder, arrays)


def load_unusual(folder: Path) -> Unusual:
    """Read what `save_unusual` wrote; raise `IntegrityError` if it is damaged."""
    return read_arrays(folder, _unusual_of)


def _unusual_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Unusual:
    trajectory = None
    if "trajectory_names" in arrays:
        keys = [key for key in arrays if key.startswith("trajectory_")]
        trajectory = anomaly_of({key.removeprefix("trajectory_"): arrays[key] for key in keys})
    stall = None
    if "stall_frame_reference" in arrays:
        stall = Stall(
            _gaussians(arrays, "stall_frames"),
            _gaussians(arrays, "stall_steps"),
            arrays["stall_frame_reference"],
            arrays["stall_step_reference"],
        )
    references = {
        name: arrays[f"{name}_reference"]
        for name in ("stall", "d3", COMBINED)
        if f"{name}_reference" in arrays
    }
    stream = str(arrays["stream"]) if "stream" in arrays else ""
    return Unusual(motion_of(arrays), trajectory, stall, stream, references)


def _gaussians(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> tuple[Gaussian, ...]:
    n_folds = sum(key.startswith(f"{prefix}_mean_") for key in arrays)
    return tuple(
        Gaussian(*(arrays[f"{prefix}_{name}_{n}"] for name in Gaussian.__dataclass_fields__))
        for n in range(n_folds)
    )
