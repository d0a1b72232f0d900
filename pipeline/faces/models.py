"""Where the file of a face detector comes from, and that it is the right one."""

import hashlib
import http.client
import logging
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.common.files import write_whole
from pipeline.faces.detection import CASCADE
from pipeline.faces.policy import DetectorName, FaceCrop

DETECTORS = ("auto", "yunet", "haar")
NAME = "face_detection_yunet_2023mar.onnx"
YUNET = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
URL = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/"
    f"models/face_detection_yunet/{NAME}"
)
SECONDS = 20  # that a server may take to answer
LARGEST = 10**7  # bytes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceModel:
    """A detector, ready to be sent to whoever runs it."""

    detector: DetectorName
    sha256: str
    content: bytes


def find_model(name: str = "auto", sha256: str = "") -> FaceModel:
    """The file of a face detector.

    YuNet's is looked for where an earlier call has put it, then downloaded, and checked. A file
    that is given is put there too, so that `model.predict` finds it.

    Args:
        name: ``yunet``, ``haar``, the path of YuNet's file, or ``auto``: YuNet if its file can be
            had, else OpenCV's Haar cascade, with a warning.
        sha256: that the file must have, if it must be the one that made a cache.

    Raises:
        SettingsError: YuNet's file cannot be had.
        IntegrityError: the file is another one.
    """
    if name == "haar":
        content = CASCADE.read_bytes()
        model = FaceModel("haar", hashlib.sha256(content).hexdigest(), content)
    elif name in ("auto", "yunet"):
        try:
            model = FaceModel("yunet", YUNET, kept_model() or _downloaded())
        except SettingsError as error:
            if name == "yunet":
                raise
            _log.warning("faces are found by OpenCV's Haar cascade, which misses more: %s", error)
            return find_model("haar", sha256)
    else:
        model = FaceModel("yunet", YUNET, _given(Path(name)))
    if sha256 and model.sha256 != sha256:
        raise IntegrityError(
            f"this is not the face detector that was used before: its sha256 is {model.sha256}, "
            f"not {sha256}",
            "install the version of OpenCV that made the cache",
        )
    return model


def model_of(crop: FaceCrop | None) -> bytes:
    """The very file of the detector that a crop was decided on with; nothing for no face crop."""
    return find_model(crop.detector, crop.detector_sha256).content if crop else b""


def model_folder() -> Path:
    """Where YuNet's file is kept: ``$XDG_CACHE_HOME/deepfake-motion``, or under ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "deepfake-motion"


def kept_model() -> bytes:
    """The file that an earlier call has put aside; nothing if it is not there, or damaged."""
    try:
        content = (model_folder() / NAME).read_bytes()
    except OSError:
        return b""
    return content if _is_yunet(content) else b""


def _given(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}",
            f"give {NAME} of OpenCV's model zoo, or one of {', '.join(DETECTORS)}",
        ) from error
    if not _is_yunet(content):
        raise IntegrityError(
            f"{path} is not {NAME}: its sha256 is {hashlib.sha256(content).hexdigest()}",
            f"its sha256 should be {YUNET}",
        )
    _keep(content)
    return content


def _downloaded() -> bytes:
    hint = f"download {NAME} elsewhere and put it into {model_folder()}, or give its path"
    try:
        with urllib.request.urlopen(URL, timeout=SECONDS) as answer:
            content: bytes = answer.read(LARGEST)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SettingsError(f"{URL} cannot be downloaded: {error}", hint) from error
    if not _is_yunet(content):
        raise SettingsError(f"{URL} is not the file it should be", hint)
    _keep(content)
    return content


def _keep(content: bytes) -> None:
    path = model_folder() / NAME
    if path.is_file() and path.read_bytes() == content:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        _log.warning("%s could not be kept in %s: %s", NAME, path.parent, error.strerror)


def _is_yunet(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == YUNET
