"""From a cache of frames and flow maps to a cache of CNN embeddings in HDF5."""
