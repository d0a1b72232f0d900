"""What decoding and searching cost, in one unit: a pixel of H.264 of a low bit rate, decoded.

As `benchmarks/faces.py` measures it on one core, rounded against the detectors.
"""

from typing import Any

YUNET = 55.0  # a pixel of the picture that is searched
CASCADE = 135.0  # a place in that picture where the smallest face fits
SCALING = 0.5  # a pixel of the frame that is scaled
DECODING = {  # a pixel, and a byte of the stream
    **dict.fromkeys(("h264", "hevc", "vp9", "av1"), (1.0, 100.0)),
    **dict.fromkeys(("ffv1", "png", "prores"), (5.0, 0.0)),
    "gif": (1.5, 12.5),
    "rawvideo": (0.1, 0.0),
}
OTHERS = 0.4, 0.0  # of any other codec


def decoding(stream: Any) -> float:
    """What a frame of this stream of an open container costs to decode.

    A codec is taken at its cheapest, and where the file does not tell how many bytes are pictures,
    none are counted.
    """
    pixel, byte = DECODING.get(stream.codec_context.codec.canonical_name, OTHERS)
    return pixel * stream.width * stream.height + byte * _bytes(stream)


def _bytes(stream: Any) -> float:
    """Of a frame, as the file has them."""
    alone = len(stream.container.streams) == 1
    bits = stream.bit_rate or (stream.container.bit_rate if alone else 0)  # a second
    return float(bits / 8 / stream.average_rate) if bits and stream.average_rate else 0.0
