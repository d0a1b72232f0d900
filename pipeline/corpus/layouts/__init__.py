"""The datasets whose folders are recognised: one file each, and this table of them."""

from collections.abc import Sequence

from pipeline.corpus.labelled_video import Video
from pipeline.corpus.layouts import celebdf, dfd, dfdc, ffpp
from pipeline.corpus.layouts.folder import Folder, Layout

LAYOUTS = {
    "dfd": Layout(dfd.recognises, dfd.read, dfd.LOOKS_FOR),
    "ffpp": Layout(ffpp.recognises, ffpp.read, ffpp.LOOKS_FOR),
    "celebdf": Layout(celebdf.recognises, celebdf.read, celebdf.LOOKS_FOR),
    "dfdc": Layout(dfdc.recognises, dfdc.read, dfdc.LOOKS_FOR),
}
AUTO, FOLDERS = "auto", "folders"
CHOICES = (AUTO, *LAYOUTS, FOLDERS)


def read(folder: Folder, layout: str = AUTO) -> list[Video]:
    """The videos of a folder that a dataset's layout explains; the others say nothing.

    Args:
        folder: to be read.
        layout: one of `LAYOUTS`, asked whether it recognises the folder or not; ``auto`` for all
            that do; ``folders`` for none.

    Raises:
        SettingsError: a list that belongs to the dataset is damaged or incomplete.
    """
    layouts: Sequence[Layout] = [LAYOUTS[layout]] if layout in LAYOUTS else []
    if layout == AUTO:
        layouts = [layout for layout in LAYOUTS.values() if layout.recognises(folder)]
    found: dict[object, Video] = {}
    for each in layouts:
        for video in each.read(folder):
            found.setdefault(video.path, video)
    return list(found.values())
