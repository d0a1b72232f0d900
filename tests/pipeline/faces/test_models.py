"""The detector's file: given, kept, downloaded, and never another one."""

import functools
import hashlib
import http.server
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.faces import FaceCrop, find_model, models
from pipeline.faces.detection import detector_of

CONTENT = b"a face detector"
YUNET = models.YUNET_SHA256


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """A place for files that nobody has used, and another file in the place of YuNet's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "YUNET_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path / "home" / "deepfake-motion" / models.YUNET_FILE_NAME


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server on this machine where the file is to be downloaded from; requests are counted."""
    (tmp_path / "served").mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(
            models, "YUNET_URL", f"http://127.0.0.1:{server.server_port}/model.onnx"
        )
        yield tmp_path / "served" / "model.onnx", requests
        server.shutdown()


def test_it_is_downloaded_once_and_kept(served, at_home):
    file, requests = served
    file.write_bytes(CONTENT)
    assert [find_model("auto").content, find_model("yunet").content] == [CONTENT, CONTENT]
    assert len(requests) == 1
    assert at_home.read_bytes() == CONTENT


def test_another_file_than_expected_is_not_used(served, at_home):
    served[0].write_bytes(b"something else")
    with pytest.raises(SettingsError, match="is not the file it should be") as error:
        find_model("yunet")
    assert str(at_home.parent) in error.value.hint
    assert not at_home.exists()


def test_without_it_the_cascade_finds_faces_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr(models, "YUNET_URL", "http://127.0.0.1:9/nothing")
    found = find_model("auto")
    assert found.detector == "haar"
    assert hashlib.sha256(found.content).hexdigest() == found.sha256
    assert "Haar cascade, which misses more" in caplog.text
    with pytest.raises(SettingsError, match="cannot be downloaded"):
        find_model("yunet")


def test_a_file_that_is_given_is_checked_and_kept(tmp_path, at_home, monkeypatch):
    monkeypatch.setattr(models, "YUNET_URL", "http://127.0.0.1:9/nothing")
    file = tmp_path / "mine.onnx"
    file.write_bytes(CONTENT)
    assert find_model(str(file)).detector == "yunet"
    file.unlink()
    assert find_model("yunet").content == CONTENT
    file.write_bytes(b"another")
    with pytest.raises(IntegrityError, match=hashlib.sha256(b"another").hexdigest()):
        find_model(str(file))
    with pytest.raises(SettingsError, match="cannot be read"):
        find_model(str(tmp_path / "missing.onnx"))


def test_a_kept_file_that_was_damaged_is_fetched_again(served, at_home):
    served[0].write_bytes(CONTENT)
    at_home.parent.mkdir(parents=True)
    at_home.write_bytes(CONTENT[:-1])
    assert find_model("yunet").content == CONTENT == at_home.read_bytes()


def test_a_detector_that_made_a_cache_is_not_replaced_by_another(served):
    served[0].write_bytes(CONTENT)
    with pytest.raises(IntegrityError, match="not the face detector that was used before"):
        find_model("yunet", "0" * 64)


def test_a_home_that_cannot_be_written_does_not_stand_in_the_way(served, at_home, caplog):
    served[0].write_bytes(CONTENT)
    at_home.parent.parent.write_text("a file where a folder should be")
    assert find_model("yunet").content == CONTENT
    assert "could not be kept" in caplog.text


def test_the_real_file_finds_real_faces(sample_videos, monkeypatch):
    folder = os.environ.get("SAMPLE_MODELS")
    if not folder:
        pytest.skip("needs YuNet's file: set SAMPLE_MODELS to the folder that holds it")
    monkeypatch.setattr(models, "YUNET_SHA256", YUNET)
    model = find_model(str(Path(folder) / models.YUNET_FILE_NAME))
    detect = detector_of(FaceCrop(), model.content)
    capture = cv2.VideoCapture(str(sample_videos / "people" / "asl_book.mkv"))
    (face,) = detect(capture.read()[1])
    np.testing.assert_allclose(face[:4], (275, 99, 55, 70), atol=8)
    assert 0.7 < face[4] <= 1
    assert detect(np.zeros((120, 160, 3), np.uint8)).shape == (0, 5)
