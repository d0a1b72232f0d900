"""Pages that need nothing else: one HTML file with its script, its style and its pictures."""

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
    """Write a page, whole or not at all.

    Args:
        path: of the page.
        template: of Jinja; the script beside it, of the same name, if there is one, is handed to it
            as ``script``, with ``script_sha256`` for its Content-Security-Policy, which allows no
            other.
        values: by the names that it has in the template; whatever is in them is escaped.
        filters: of the template, besides Jinja's own.

    Returns:
        the bytes of the page.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
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


def jpeg_uri(picture: npt.NDArray[np.uint8], quality: int) -> str:
    """A picture, (H, W, 3) RGB or (H, W) grey uint8, as the data URI of a JPEG."""
    if picture.ndim == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    options = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    jpeg = cv2.imencode(".jpg", picture, options)[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
