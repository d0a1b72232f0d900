"""From a cache of frames and flow maps to a cache of CNN embeddings in HDF5."""

import pipeline  # noqa: F401 - watches while a command is being loaded
