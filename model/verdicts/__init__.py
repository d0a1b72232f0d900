"""What a run says of new videos."""

from typing import TYPE_CHECKING

from pipeline.lazy import lazily

if TYPE_CHECKING:
    from model.verdicts.prediction import Prediction as Prediction
    from model.verdicts.prediction import backbone_of as backbone_of
    from model.verdicts.prediction import predict as predict

_HOMES = {
    "Prediction": "model.verdicts.prediction",
    "backbone_of": "model.verdicts.prediction",
    "predict": "model.verdicts.prediction",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
