"""H.264 by x264 that is the same bytes on every machine."""

import cv2

AVX_512 = 13  # as OpenCV counts what a processor can


def x264_params(*params: str) -> dict[str, str]:
    """The option of an encoder that hands parameters to x264, in x264's notation."""
    if cv2.checkHardwareSupport(AVX_512):
        # With it, PyAV 18's x264 now and then gives other bytes for the same pictures.
        params = (*params, "asm=avx2")
    return {"x264-params": ":".join(params)} if params else {}
