"""Explain the verdict on a clip: where and when it comes from, and how far to believe that."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch

from features.backbones import Backbone
from features.embedding import embed_clip, stream_pictures
from model.explanation.anomaly import Anomaly
from model.explanation.explanation import Explanation
from model.explanation.faithfulness import faithfulness_of, log_odds
from model.explanation.heatmaps import heat_of, slope_of
from model.explanation.occlusion_over_time import by_moment, contributions, moments_of
from model.run.run import Run
from model.training.sequences import join_streams


def explain_clip(
    run: Run,
    arrays: Mapping[str, npt.NDArray[Any]],
    backbone: Backbone,
    *,
    anomaly: Anomaly | None = None,
    faithfulness: bool = False,
) -> Explanation:
    """Explain what a run says of a clip.

    Args:
        run: a trained run.
        arrays: of one clip, as `features.embedding.embed_clip` takes them.
        backbone: as `model.prediction.predict_videos.backbone_of` gives it.
        anomaly: what motion is usual, as `load_anomaly` gives it.
        faithfulness: measure how far the heat can be believed, too: for each stream, as if the
            clip was embedded four times more.
    """
    options = run.config.options
    embedded = embed_clip(arrays, backbone, options)
    x = torch.from_numpy(join_streams(embedded, run.config.streams))
    slope = slope_of(run, x)
    pictures = {s: stream_pictures(arrays, s, options) for s in options.streams}
    heat = {
        stream: heat_of(backbone, shown, slope.of(run, stream), options.every)
        for stream, shown in pictures.items()
    }
    rows, n = embedded["rows"], len(arrays["flow"])
    return Explanation(
        log_odds=log_odds(run, embedded),
        moments=by_moment(moments_of(run, x), rows, n),
        contribution=by_moment(contributions(run, x), rows, n),
        heat=heat,
        anomaly=anomaly.by_moment(embedded["motion"]) if anomaly else None,
        faithfulness={
            stream: faithfulness_of(run, backbone, embedded, stream, pictures[stream], heat[stream])
            for stream in (heat if faithfulness else ())
        },
    )
