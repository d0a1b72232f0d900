"""An explanation is of the very verdict that the detector gives."""

import numpy as np
import pytest
import torch

from features.backbones import load_backbone
from features.embedding import embed_clip
from model.explanation.anomaly import load_anomaly
from model.explanation.explain import explain_clip
from model.run.run import load_run
from model.training.sequences import join_streams
from pipeline.cache import Cache


@pytest.fixture(scope="module")
def parts(chain):
    """The run over real videos, its backbone, and two of its clips."""
    clips = Cache(chain.folder.parent / "clips", "extract")
    keys = ("flow", "flow_range", "timestamps", "camera", "frames")
    arrays = [{key: clips.read(clip, key) for key in keys} for clip in clips.clips[:2]]
    return load_run(chain.folder), load_backbone("mobilenet_v2", str(chain.weights), "cpu"), arrays


def test_it_explains_the_verdict_of_the_detector(parts):
    run, backbone, clips = parts
    anomaly = load_anomaly(run.folder)
    for arrays in clips:
        found = explain_clip(run, arrays, backbone, anomaly=anomaly, faithfulness=True)
        embedded = embed_clip(arrays, backbone, run.config.options)
        x = torch.from_numpy(join_streams(embedded, run.config.streams))
        with torch.inference_mode():
            logit = run.ensemble(x[None]).double().numpy()
        assert found.log_odds == float(logit[0]) / run.config.temperature
        n = len(arrays["flow"])
        assert found.moments.shape == found.contribution.shape == found.anomaly.shape == (n,)
        assert np.isfinite(found.contribution).all()
        assert ((found.moments > 0) & (found.moments < 1)).all()
        assert {s: heat.shape for s, heat in found.heat.items()} == {
            "flow": (n, 2, 2),
            "frames": (n, 2, 2),
        }
        assert set(found.faithfulness) == {"flow", "frames"}
    assert explain_clip(run, clips[0], backbone, anomaly=anomaly).faithfulness == {}
