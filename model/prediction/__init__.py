"""Predictions of a run for new videos."""

from model.prediction.predict_videos import Prediction, backbone_of, predict

__all__ = ["Prediction", "backbone_of", "predict"]
