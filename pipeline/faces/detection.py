"""Detectors of faces: YuNet, and OpenCV's Haar cascade where YuNet's file cannot be had."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.faces.policy import FaceCrop

Detections = npt.NDArray[np.float64]  # (N, 5): x, y, width, height in pixels, score in 0..1

SCORE = 0.7  # of YuNet, below which a face is none
OVERLAP = 0.3  # of two boxes, above which they are one face
STEP, VOTES = 1.2, 3  # of the cascade: between two sizes, and windows that agree
SMALLEST = 28  # pixels, of a face
# In pixels of H.264 that are decoded meanwhile, as `benchmarks/faces.py` measures it.
YUNET_COST = 55.0  # a pixel
CASCADE_COST = 160.0  # a place where the smallest face fits
CASCADE = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"


class Detector(Protocol):
    """Finds faces in a picture.

    Attributes:
        smallest: pixels, the longer side of a picture that it still does well on.
        zooms: how much larger the picture may become, one after the other, until a face is found.
    """

    smallest: int
    zooms: tuple[int, ...]

    def cost(self, width: int, height: int) -> float:
        """How many pixels of video can be decoded while a picture of this size is searched."""

    def __call__(self, picture: npt.NDArray[np.uint8]) -> Detections:
        """All faces in a picture (H, W, 3) uint8, BGR, as (N, 5): x, y, width, height, score."""


def detector_of(crop: FaceCrop, model: bytes) -> Detector:
    """The detector that a crop asks for; ``model`` is its file."""
    return _YuNet(model) if crop.detector == "yunet" else _Cascade(model)


class _YuNet:
    """Wu, Peng, Yu, "YuNet: a tiny millisecond-level face detector", 2023, as OpenCV runs it."""

    smallest = 160
    zooms: tuple[int, ...] = (1, 2)

    def cost(self, width: int, height: int) -> float:
        return YUNET_COST * width * height

    def __init__(self, model: bytes) -> None:
        content, nothing = np.frombuffer(model, np.uint8), np.zeros(0, np.uint8)
        with _only_errors():
            self._network = cv2.FaceDetectorYN.create(
                "onnx", content, nothing, (32, 32), SCORE, OVERLAP
            )

    def __call__(self, picture: npt.NDArray[np.uint8]) -> Detections:
        with _only_errors():
            self._network.setInputSize((picture.shape[1], picture.shape[0]))
            found = self._network.detect(picture)[1]  # (N, 15): box, five landmarks, score
        if found is None:
            return np.zeros((0, 5))
        return np.asarray(found, np.float64)[:, [0, 1, 2, 3, 14]]


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """OpenCV 5 warns of a call that it makes itself, for every network."""
    log: Any = cv2.utils.logging
    said = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        log.setLogLevel(said)


class _Cascade:
    """Viola, Jones, "Rapid object detection using a boosted cascade of simple features", 2001."""

    smallest = 400
    zooms: tuple[int, ...] = (1,)

    def cost(self, width: int, height: int) -> float:
        return CASCADE_COST * max(0, width - SMALLEST) * max(0, height - SMALLEST)

    def __init__(self, model: bytes) -> None:
        storage = cv2.FileStorage(model.decode(), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        self._cascade = cv2.CascadeClassifier()
        self._cascade.read(storage.getFirstTopLevelNode())

    def __call__(self, picture: npt.NDArray[np.uint8]) -> Detections:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        boxes, votes = self._cascade.detectMultiScale2(
            grey, scaleFactor=STEP, minNeighbors=VOTES, minSize=(SMALLEST, SMALLEST)
        )
        if not len(boxes):
            return np.zeros((0, 5))
        scores = 1 - 1 / np.asarray(votes, np.float64).ravel()
        return np.column_stack([np.asarray(boxes, np.float64), scores])
