"""From videos to a cache of frame stacks and optical-flow magnitude maps in HDF5."""

from pipeline.launch import watch

watch()
