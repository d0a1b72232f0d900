"""Datasets whose folders are recognised, one module each."""

from collections.abc import Sequence

from pipeline.corpus.labelled_video import Video
from pipeline.corpus.layouts import celebdf, dfd, dfdc, ffpp
from pipeline.corpus.layouts.folder import Folder, Layout

LAYOUTS: dict[str, Layout] = {"dfd": dfd, "ffpp": ffpp, "celebdf": celebdf, "dfdc": dfdc}
AUTO, FOLDERS = "auto", "folders"
CHOICES = (AUTO, *LAYOUTS, FOLDERS)


def read(folder: Folder, layout: str = AUTO) -> list[Video]:
    """Return the videos of a folder that a layout explains: the given one, or any if ``auto``.

    Raises:
        SettingsError: a list that belongs to the dataset is damaged or incomplete.
    """
    used: Sequence[Layout] = [LAYOUTS[layout]] if layout in LAYOUTS else []
    if layout == AUTO:
        used = [each for each in LAYOUTS.values() if each.recognises(folder)]
    by_path: dict[object, Video] = {}
    for each in used:
        for video in each.read(folder):
            by_path.setdefault(video.path, video)
    return list(by_path.values())
