"""What decoding and searching cost, in one unit: a pixel of H.264 of a low bit rate, decoded.

As `benchmarks/faces.py` measures it on one core, rounded against the detectors.
"""

from typing import Any

YUNET = 55.0  # a pixel of the picture that is searched
CASCADE = 180.0  # a place in that picture where the smallest face fits
SCALING = 0.5  # a pixel of the frame that is scaled
DECODING = {  # a pixel
    **dict.fromkeys(("h264", "hevc", "vp9", "av1"), 1.0),
    **dict.fromkeys(("ffv1", "png", "prores"), 5.0),
    "rawvideo": 0.1,
}
OTHERS = 0.4  # a pixel of any other codec
GIF, GIF_BYTE = 2.0, 17.0  # a pixel, and a byte of the file


def decoding(stream: Any) -> float:
    """What a frame of this stream of an open container costs to decode.

    A codec is taken at its cheapest, except GIF, whose cost goes by the size of the file.
    """
    n_pixels = stream.width * stream.height
    codec = stream.codec_context.codec.canonical_name
    if codec == "gif":
        n_bytes = stream.container.size / stream.frames if stream.frames else 0
        return float(GIF * n_pixels + GIF_BYTE * n_bytes)
    return float(DECODING.get(codec, OTHERS) * n_pixels)
