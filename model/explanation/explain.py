"""Explanation of the verdict on a clip: where and when it comes from."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from features.backbones import Backbone, Images
from features.embedding import begin_trajectory, embed_clip, stream_images
from features.trajectory import Trajectory
from model.explanation.anomaly import Anomaly
from model.explanation.exact_split import Split, exact_split, is_exact
from model.explanation.faithfulness import Faithfulness, faithfulness_of, log_odds
from model.explanation.heatmaps import Slope, heat_of, resized, slope_of
from model.explanation.occlusion_over_time import (
    by_moment,
    contributions,
    shared_out,
    span_probabilities,
)
from model.explanation.trajectory_heat import trajectory_heat
from model.run.run import Run
from model.training.sequences import join_streams


@dataclass(frozen=True)
class Explanation:
    """Explanation of the verdict on one clip of M = T-1 moments, one for each flow map."""

    log_odds: float  # calibrated, of being fake
    moments: npt.NDArray[np.float64]  # probability of the span around each by itself, (M,)
    # Fall of the log-odds without that span, or by `split` the moment's own part of them, (M,).
    contribution: npt.NDArray[np.float64]
    heat: Mapping[str, npt.NDArray[np.float32]]  # stream → log-odds of the cells, (M, h, w)
    anomaly: npt.NDArray[np.float64]  # distance from usual motion, (M,); 1 is usual
    faithfulness: Mapping[str, Faithfulness]  # of each stream's heat; empty unless asked for
    split: Split | None = None  # of the statistics head's log-odds


def explain_clip(
    run: Run,
    arrays: Mapping[str, npt.NDArray[Any]],
    backbone: Backbone,
    *,
    anomaly: Anomaly,
    faithfulness: bool = False,
) -> Explanation:
    """Explain the verdict of a run on a clip, given as for `features.embedding.embed_clip`.

    Faithfulness of the heatmaps takes as long as four embeddings for each stream.
    """
    options = run.config.options
    embedded = embed_clip(arrays, backbone, options)
    x = torch.from_numpy(join_streams(embedded, run.config.streams))
    slope = slope_of(run, x)
    pictures = {stream: stream_images(arrays, stream, options) for stream in options.streams}
    tracked = {column.split()[0] for column in run.config.trajectory}
    begin = partial(begin_trajectory, arrays, backbone, options)
    heat = {
        stream: _heat(run, backbone, slope, stream, shown, begin if stream in tracked else None)
        for stream, shown in pictures.items()
    }
    rows, n = embedded["rows"], len(arrays["flow"])
    spans = span_probabilities(run.ensemble, x, run.ensemble.crop_length, run.config.temperature)
    split = exact_split(run, x) if is_exact(run) else None
    return Explanation(
        log_odds=log_odds(run, embedded),
        moments=by_moment(spans, rows, n),
        contribution=shared_out(split.moments.sum(1), rows, n)
        if split
        else by_moment(contributions(run, x), rows, n),
        heat=heat,
        anomaly=anomaly.by_moment(embedded["motion"]),
        faithfulness={
            stream: faithfulness_of(
                run,
                backbone,
                embedded,
                stream,
                pictures[stream],
                heat[stream],
                begin if stream in tracked else None,
            )
            for stream in (heat if faithfulness else ())
        },
        split=split,
    )


def _heat(
    run: Run,
    backbone: Backbone,
    slope: Slope,
    stream: str,
    pictures: Images,
    begin: Callable[..., Trajectory] | None,
) -> npt.NDArray[np.float32]:
    """Return what a stream's embeddings and trajectory add in each cell, (M, h, w)."""
    every, parts = run.config.options.every, []
    if stream in run.config.streams:
        parts.append(heat_of(backbone, pictures, slope.for_stream(run, stream), every))
    if begin:
        trajectory = begin(keep_cells=True)
        deque(backbone.embed_each([(pictures, trajectory)], every), maxlen=0)
        parts.append(trajectory_heat(run, slope, stream, trajectory, backbone, len(pictures)))
    size = max(part.shape[1:] for part in parts)
    return np.sum([resized(part, size) for part in parts], axis=0)
