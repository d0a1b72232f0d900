"""What these tests share: decoding as extraction does."""

from pipeline.video.decode import sampled, scaled_frames


def decode(path, geometry, rate):
    """Yield the scaled frames of a video."""
    with sampled(path, rate) as (upright, frames):
        yield from scaled_frames(upright, frames, geometry)
