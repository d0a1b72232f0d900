"""Face detectors: YuNet, and OpenCV's Haar cascade where YuNet's file is not available."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.faces.policy import FaceCrop

Detections = npt.NDArray[np.float64]  # (N, 5): x, y, width, height in pixels, score in 0..1
Detector = Callable[[npt.NDArray[np.uint8]], Detections]  # of a frame, (H, W, 3) BGR

MIN_FACE_SCORE = 0.7  # YuNet's confidence; below it, walls become faces
MAX_OVERLAP = 0.3  # intersection over union; above it, two of YuNet's boxes are one face
CASCADE_SCALE_STEP = 1.3  # ratio of face sizes that the cascade tries
CASCADE_MIN_NEIGHBOURS = 2  # overlapping hits that make a face
CASCADE_MIN_FACE = 28  # pixels
CASCADE_FILE = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"


@functools.lru_cache(maxsize=1)  # loading takes as long as several detections
def detector_of(crop: FaceCrop, model: bytes) -> Detector:
    """Load the detector of a crop from the content of its file."""
    return _yunet(model) if crop.detector == "yunet" else _haar_cascade(model)


def _yunet(model: bytes) -> Detector:
    detect = yunet(model)
    return lambda frame: detect(frame)[:, [0, 1, 2, 3, 14]]


@functools.lru_cache(maxsize=1)
def yunet(model: bytes) -> Detector:
    """Load YuNet (Wu, Peng, Yu, "YuNet: a tiny millisecond-level face detector", 2023).

    Returns:
        a function from a frame to (N, 15): box; x and y of the eyes, the nose and the corners of
        the mouth, in pixels; score.
    """
    content, no_config = np.frombuffer(model, np.uint8), np.zeros(0, np.uint8)
    with _without_warnings():
        network = cv2.FaceDetectorYN.create(
            "onnx", content, no_config, (32, 32), MIN_FACE_SCORE, MAX_OVERLAP
        )

    def detect(frame: npt.NDArray[np.uint8]) -> Detections:
        with _without_warnings():
            network.setInputSize((frame.shape[1], frame.shape[0]))
            faces = network.detect(frame)[1]
        return np.zeros((0, 15)) if faces is None else np.asarray(faces, np.float64)

    return detect


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence OpenCV 5, which warns of a call that it makes itself."""
    log: Any = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _haar_cascade(model: bytes) -> Detector:
    """Load a cascade (Viola, Jones, "Rapid object detection using a boosted cascade", 2001)."""
    storage = cv2.FileStorage(model.decode(), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    cascade = cv2.CascadeClassifier()
    cascade.read(storage.getFirstTopLevelNode())

    def detect(frame: npt.NDArray[np.uint8]) -> Detections:
        boxes, votes = cascade.detectMultiScale2(
            cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY),
            scaleFactor=CASCADE_SCALE_STEP,
            minNeighbors=CASCADE_MIN_NEIGHBOURS,
            minSize=(CASCADE_MIN_FACE, CASCADE_MIN_FACE),
        )
        if not len(boxes):
            return np.zeros((0, 5))
        scores = 1 - 1 / np.asarray(votes, np.float64).ravel()
        return np.column_stack([np.asarray(boxes, np.float64), scores])

    return detect
