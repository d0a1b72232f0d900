"""Detectors of faces: YuNet, and OpenCV's Haar cascade where YuNet's file cannot be had."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.faces import costs
from pipeline.faces.policy import DetectorName, FaceCrop

Detections = npt.NDArray[np.float64]  # (N, 5): x, y, width, height in pixels, score in 0..1

SCORE = 0.7  # of YuNet, below which a face is none
OVERLAP = 0.3  # of two boxes, above which they are one face
STEP, VOTES = 1.3, 2  # of the cascade: between two sizes, and windows that agree
SMALLEST = 28  # pixels, of a face
WHOLE = 0.0, 0.0, 1.0, 1.0  # of a picture: left, top, right, bottom
MIDDLE = 0.2, 0.0, 0.8, 0.75  # where most faces are
CASCADE = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"


class View(NamedTuple):
    """How a picture is shown to a detector.

    Attributes:
        longest: the longer side of all of it, in pixels; never more than it has.
        part: of it that is shown: left, top, right and bottom, in 0..1.
    """

    longest: float
    part: tuple[float, float, float, float] = WHOLE


class Detector(Protocol):
    """Finds faces in a picture.

    Attributes:
        step: pixels; sides of a picture between two multiples of it cost what the larger one does.
    """

    step: int

    def views(self, longest: int) -> tuple[View, ...]:
        """How to show it pictures whose longer side is given, in pixels, one after the other."""

    def cost(self, width: int, height: int) -> float:
        """What it costs to search a picture of this size, in the unit of `costs`."""

    def __call__(self, picture: npt.NDArray[np.uint8]) -> Detections:
        """All faces in a picture (H, W, 3) uint8, BGR, as (N, 5): x, y, width, height, score."""


def detector_of(crop: FaceCrop, model: bytes) -> Detector:
    """The detector that a crop asks for; ``model`` is its file."""
    return _loaded(crop.detector, model)


@functools.lru_cache(maxsize=1)  # to load it takes as long as several looks
def _loaded(name: DetectorName, model: bytes) -> Detector:
    return _YuNet(model) if name == "yunet" else _Cascade(model)


class _YuNet:
    """Wu, Peng, Yu, "YuNet: a tiny millisecond-level face detector", 2023, as OpenCV runs it."""

    step = 32

    def views(self, longest: int) -> tuple[View, ...]:
        coarse = min(max(0.2 * longest, 128), 512)
        return View(coarse), View(2.5 * coarse)

    def cost(self, width: int, height: int) -> float:
        return costs.YUNET * (-(-width // self.step) * (-(-height // self.step))) * self.step**2

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

    step = 1

    def views(self, longest: int) -> tuple[View, ...]:
        fine, coarse = min(max(0.55 * longest, 160), 400), min(max(0.35 * longest, 192), 256)
        return View(fine, MIDDLE), View(coarse), View(fine)

    def cost(self, width: int, height: int) -> float:
        return costs.CASCADE * max(0, width - SMALLEST) * max(0, height - SMALLEST)

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
