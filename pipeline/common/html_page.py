"""Self-contained HTML pages: script, style and images inside one file."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from pipeline.common.files import write_whole


def write_page(
    path: Path,
    template: Path,
    values: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> int:
    """Write a page from a Jinja template, which escapes values, and return its size in bytes.

    A script of the template's name is passed as ``script``, and its hash, for the
    Content-Security-Policy, as ``script_sha256``.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(filters or {})
    source = template.with_suffix(".js")
    script = source.read_text(encoding="utf-8") if source.exists() else ""
    page = templates.get_template(template.name).render(
        **values,
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    content = page.encode("utf-8", "backslashreplace")  # file names need not be text
    write_whole(path, lambda temporary: temporary.write_bytes(content))
    return len(content)


def jpeg_uri(image: npt.NDArray[np.uint8], quality: int) -> str:
    """Return the data URI of a JPEG of (H, W, 3) uint8 RGB or (H, W) uint8 grey."""
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    options = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    jpeg = cv2.imencode(".jpg", image, options)[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
