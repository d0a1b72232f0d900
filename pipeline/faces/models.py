"""The files of face detectors, checked by their sha256."""

import hashlib
import http.client
import logging
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import write_whole
from pipeline.faces.detection import CASCADE_FILE
from pipeline.faces.policy import DetectorName, FaceCrop

DETECTORS = ("auto", "yunet", "haar")
YUNET_FILE_NAME = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
YUNET_URL = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/"
    f"models/face_detection_yunet/{YUNET_FILE_NAME}"
)
DOWNLOAD_TIMEOUT = 20  # seconds without an answer
MAX_DOWNLOAD = 10**7  # bytes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceModel:
    """A detector's file, to be sent to workers."""

    detector: DetectorName
    sha256: str
    content: bytes


def find_model(name: str = "auto", sha256: str = "") -> FaceModel:
    """Read the file of a face detector, and download YuNet's if it is not on this machine.

    ``auto`` is YuNet if its file is available, else OpenCV's Haar cascade, with a warning. A path
    of YuNet's file is copied to `model_folder`, where `model.predict` finds it.

    Raises:
        SettingsError: YuNet's file is not available.
        IntegrityError: the file's sha256 is another one.
    """
    if name == "haar":
        content = CASCADE_FILE.read_bytes()
        model = FaceModel("haar", hashlib.sha256(content).hexdigest(), content)
    elif name in ("auto", "yunet"):
        try:
            model = FaceModel("yunet", YUNET_SHA256, stored_model() or _download())
        except SettingsError as error:
            if name == "yunet":
                raise
            _log.warning("faces are found by OpenCV's Haar cascade, which misses more: %s", error)
            return find_model("haar", sha256)
    else:
        model = FaceModel("yunet", YUNET_SHA256, _read_given(Path(name)))
    if sha256 and model.sha256 != sha256:
        raise IntegrityError(
            f"this is not the face detector that was used before: its sha256 is {model.sha256}, "
            f"not {sha256}",
            "install the version of OpenCV that made the cache",
        )
    return model


def model_of(crop: FaceCrop | None) -> bytes:
    """Read the detector's file of a face crop; empty without one."""
    return find_model(crop.detector, crop.detector_sha256).content if crop else b""


def model_folder() -> Path:
    """Return the folder of YuNet's file."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "deepfake-motion"


def stored_model() -> bytes:
    """Read YuNet's file from `model_folder`; empty if it is missing or damaged."""
    try:
        content = (model_folder() / YUNET_FILE_NAME).read_bytes()
    except OSError:
        return b""
    return content if _is_yunet(content) else b""


def _read_given(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}",
            f"give {YUNET_FILE_NAME} of OpenCV's model zoo, or one of {', '.join(DETECTORS)}",
        ) from error
    if not _is_yunet(content):
        raise IntegrityError(
            f"{path} is not {YUNET_FILE_NAME}: its sha256 is {hashlib.sha256(content).hexdigest()}",
            f"its sha256 should be {YUNET_SHA256}",
        )
    _store(content)
    return content


def _download() -> bytes:
    hint = (
        f"download {YUNET_FILE_NAME} elsewhere and put it into {model_folder()}, or give its path"
    )
    try:
        with urllib.request.urlopen(YUNET_URL, timeout=DOWNLOAD_TIMEOUT) as answer:
            content: bytes = answer.read(MAX_DOWNLOAD)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SettingsError(f"{YUNET_URL} cannot be downloaded: {error}", hint) from error
    if not _is_yunet(content):
        raise SettingsError(f"{YUNET_URL} is not the file it should be", hint)
    _store(content)
    return content


def _store(content: bytes) -> None:
    path = model_folder() / YUNET_FILE_NAME
    if path.is_file() and path.read_bytes() == content:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        _log.warning("%s could not be kept in %s: %s", YUNET_FILE_NAME, path.parent, error.strerror)


def _is_yunet(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == YUNET_SHA256
