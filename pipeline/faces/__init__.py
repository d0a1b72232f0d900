"""A steady crop about a face.

A box that follows a face makes motion that is not there. So a clip gets one box: all places where
one face was, with a margin.
"""

from pipeline.faces.following import FaceTrack
from pipeline.faces.models import DETECTORS, find_model, model_of
from pipeline.faces.policy import FaceCrop, NoFace, SeveralFaces, frames_between_looks
from pipeline.faces.search import Search

__all__ = [
    "DETECTORS",
    "FaceCrop",
    "FaceTrack",
    "NoFace",
    "Search",
    "SeveralFaces",
    "find_model",
    "frames_between_looks",
    "model_of",
]
