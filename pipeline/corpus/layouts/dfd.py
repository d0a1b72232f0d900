"""DeepFakeDetection (DFD): 28 actors; https://github.com/ondyari/FaceForensics, dataset/.

``01__exit_phone_room.mp4`` is actor 01 in a scene, ``24_23__exit_phone_room__YR5OVD4S.mp4`` that
scene of actor 24, the target, with the face of actor 23, the source. Copies have other folders:
``original_sequences/actors/c23/videos``, ``DFD_manipulated_sequences``, ``DFD_REAL``.
"""

import re

from pipeline.corpus.labelled_video import FAKE, REAL, Video
from pipeline.corpus.layouts.folder import Folder

LOOKS_FOR = "01__exit_phone_room.mp4 and 24_23__exit_phone_room__YR5OVD4S.mp4"
_REAL = re.compile(r"(\d{2})__(.+)")
_FAKE = re.compile(r"(\d{2})_(\d{2})__(.+)__[A-Z0-9]{8}")
_FOLDER = re.compile(r"dfd|actors|deepfakedetection")


def recognises(folder: Folder) -> bool:
    """Return whether a name is a fake's, or a folder's gives the dataset or a label."""
    return (
        folder.label is not None
        or any(_FOLDER.search(name) for name in folder.names)
        or any(_FAKE.fullmatch(path.stem) for path in folder.videos)
    )


def read(folder: Folder) -> list[Video]:
    """Take the label from the folder, or else from the name; originals are the target's scenes."""
    videos = []
    for path in folder.videos:
        real, fake = _REAL.fullmatch(path.stem), _FAKE.fullmatch(path.stem)
        if fake:
            target, source, scene = fake.groups()
            label, actors = FAKE, [target, source]
        elif real:
            label, actors = REAL, [real[1]]
            target, scene = real.groups()
        else:
            continue
        if folder.label is not None and not (real and "actors" in folder.names):
            label = folder.label
        videos.append(
            Video(
                path,
                label,
                tuple(f"dfd:{actor}" for actor in actors),
                source="dfd",
                manipulation="DeepFakeDetection" if fake else "",
                compression=folder.compression,
                original=f"dfd:{target}__{scene}",
            )
        )
    return videos
