"""From videos to a cache of frame stacks and optical-flow magnitude maps in HDF5.

Example::

    from pathlib import Path
    from pipeline import Cache, Settings, read_corpus
    from pipeline.extraction import extract

    if __name__ == "__main__":  # processes are started anew: they read this file too
        corpus = read_corpus([Path("data/DFD_REAL"), Path("data/DFD_FAKE")])
        cache = extract(corpus, Path("caches/dfd"), Settings(flow_backend="cpu"))
        clip = cache.clips[0]
        flow = cache.read(clip, "flow")  # (T-1, 224, 224) uint8
        assert Cache("caches/dfd").clips == cache.clips

`extract` is in `pipeline.extraction`, as `pipeline.extract` is the command; the flow by itself is
in `pipeline.farneback`. What else a module has can be used too, and may change.
"""

from typing import TYPE_CHECKING

from pipeline.common.lazy import lazily
from pipeline.common.startup import watch

watch()

if TYPE_CHECKING:
    from pipeline.cache import Cache as Cache
    from pipeline.cache import Clip as Clip
    from pipeline.common.errors import PipelineError as PipelineError
    from pipeline.corpus.labelled_video import Video as Video
    from pipeline.corpus.reading import read_corpus as read_corpus
    from pipeline.faces import FaceCrop as FaceCrop
    from pipeline.settings import Settings as Settings
    from pipeline.splits.protocols import Splitting as Splitting
    from pipeline.workers.local import LocalPool as LocalPool

_HOMES = {
    "Cache": "pipeline.cache",
    "Clip": "pipeline.cache",
    "FaceCrop": "pipeline.faces",
    "LocalPool": "pipeline.workers.local",
    "PipelineError": "pipeline.common.errors",
    "Settings": "pipeline.settings",
    "Splitting": "pipeline.splits.protocols",
    "Video": "pipeline.corpus.labelled_video",
    "read_corpus": "pipeline.corpus.reading",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
