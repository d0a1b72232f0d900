"""From videos to a cache of frame stacks and optical-flow magnitude maps in HDF5.

Example::

    from pathlib import Path
    from pipeline import Cache, Settings, read_corpus
    from pipeline.extraction import extract

    if __name__ == "__main__":  # worker processes import this file, too
        corpus = read_corpus([Path("data/DFD_REAL"), Path("data/DFD_FAKE")])
        cache = extract(corpus, Path("caches/dfd"), Settings(flow_backend="cpu"))
        clip = cache.clips[0]
        flow = cache.read(clip, "flow")  # (T-1, 224, 224) uint8
        assert Cache("caches/dfd").clips == cache.clips

`extract` is in `pipeline.extraction`, as `pipeline.extract` is the command; flow alone is in
`pipeline.farneback`. Names that are only in modules may change.
"""

from pipeline.common.startup import watch

watch()  # first: it also reports a library that the imports below do not find

from pipeline.cache import Cache, Clip  # noqa: E402
from pipeline.common.errors import PipelineError  # noqa: E402
from pipeline.corpus.labelled_video import Video  # noqa: E402
from pipeline.corpus.reading import read_corpus  # noqa: E402
from pipeline.faces import FaceCrop  # noqa: E402
from pipeline.settings import Settings  # noqa: E402
from pipeline.splits.protocols import Splitting  # noqa: E402
from pipeline.workers.local import LocalPool  # noqa: E402

__all__ = [
    "Cache",
    "Clip",
    "FaceCrop",
    "LocalPool",
    "PipelineError",
    "Settings",
    "Splitting",
    "Video",
    "read_corpus",
]
