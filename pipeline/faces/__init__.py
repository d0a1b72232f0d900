"""A steady crop about a face.

A box that follows a face from frame to frame makes motion that is not there. So faces are detected
twice a second, one face is followed through the clip, and the clip gets one box: all places where
that face was, with a margin.
"""

from pipeline.faces.detection import Detections, Detector, detector_of
from pipeline.faces.following import FaceTrack, Look, choose
from pipeline.faces.models import DETECTORS, FaceModel, find_model, model_of
from pipeline.faces.policy import FaceCrop, NoFace, SeveralFaces, steady_box
from pipeline.faces.search import Search

__all__ = [
    "DETECTORS",
    "Detections",
    "Detector",
    "FaceCrop",
    "FaceModel",
    "FaceTrack",
    "Look",
    "NoFace",
    "Search",
    "SeveralFaces",
    "choose",
    "detector_of",
    "find_model",
    "model_of",
    "steady_box",
]
