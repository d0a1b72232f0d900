"""What a run says of new videos."""

from typing import TYPE_CHECKING

from pipeline.common.lazy import lazily

if TYPE_CHECKING:
    from model.prediction.predict_videos import Prediction as Prediction
    from model.prediction.predict_videos import backbone_of as backbone_of
    from model.prediction.predict_videos import predict as predict

_HOMES = {
    "Prediction": "model.prediction.predict_videos",
    "backbone_of": "model.prediction.predict_videos",
    "predict": "model.prediction.predict_videos",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
