"""What somebody needs to know to find the same of a video again."""

import contextlib
import functools
import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from model.prediction.predict_videos import Examined
from model.reports.evidence_video import Evidence
from model.run.run import Run, digest_of
from pipeline.common.files import readable_bytes, sha256_of
from pipeline.common.versions import version_of
from pipeline.settings import Settings

PACKAGES = ("deepfake-motion", "av", "numpy", "opencv-contrib-python", "torch", "torchvision")


def record(run: Run, examined: Examined, clips: Sequence[Evidence]) -> dict[str, str]:
    """The facts of a file, of how it was looked at and of the run, by name."""
    return _of_file(examined) | (_of_clips(run, clips) if clips else {}) | _of_run(run)


def looked_at(clips: Sequence[Evidence]) -> list[tuple[float, float]]:
    """The seconds of the video that each clip is of."""
    return [(float(t[0]), float(t[-1])) for t in (c.arrays["timestamps"] for c in clips)]


def tested(run: Run) -> tuple[int, int, int, int] | None:
    """How a run's own test went; None if it has none.

    Returns:
        how many videos are real and called real, real and called fake, fake and called real, fake
        and called fake.
    """
    try:
        found = json.loads((run.folder / "metrics.json").read_text())
        if found["cache_sha256"] != run.config.cache_sha256:
            return None
        true_real, false_fake, false_real, true_fake = map(int, found["test"]["confusion"])
        return true_real, false_fake, false_real, true_fake
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_file(examined: Examined) -> dict[str, str]:
    if facts := examined.facts:
        return {
            "sha256 of the file": facts.sha256,
            "size of the file": readable_bytes(facts.n_bytes),
            "duration": f"{facts.duration:.2f} s",
            "picture": f"{facts.width}x{facts.height} pixels, {facts.fps:.4g} frames/s",
        }
    with contextlib.suppress(ValueError, OSError):
        path = Path(examined.prediction.path)
        if path.is_file():
            return {
                "sha256 of the file": sha256_of(path),
                "size of the file": readable_bytes(path.stat().st_size),
            }
    return {}


def _of_clips(run: Run, clips: Sequence[Evidence]) -> dict[str, str]:
    settings = Settings.from_json(run.config.extraction)
    crops = sorted({tuple(clip.arrays["crop"].tolist()) for clip in clips})
    said = "; ".join(f"{w}x{h} at {x}, {y}" for x, y, w, h in crops)
    about = f" (about a face, by {settings.faces.detector})" if settings.faces else ""
    stabilised = ", without the camera's motion" if settings.stabilise else ""
    return {
        "frames looked at": "; ".join(
            f"{run.config.frames} from {begin:.2f} to {end:.2f} s"
            for begin, end in looked_at(clips)
        ),
        "crop": f"{said}{about}, at {settings.width}x{settings.height} pixels",
        "flow": f"Farneback, backend {settings.flow_backend}{stabilised}",
    }


def _of_run(run: Run) -> dict[str, str]:
    config, embedding = run.config, run.config.embedding
    return {
        "run": run.folder.resolve().name,
        "sha256 of model and settings": digest_of(run),
        "detector": f"{config.n_heads} {config.training.head} heads over "
        f"{', '.join(config.streams)}",
        "backbone": f"{embedding['backbone']}, weights {embedding['weights']}, "
        f"{embedding['precision']}",
        "sha256 of its weights": embedding["weights_sha256"],
        "trained on": str(config.extraction["corpus"]),
        "sha256 of the training cache": config.cache_sha256,
        "threshold": f"{config.threshold:.6f}, {config.threshold_rule}",
        "versions": _named(_versions()),
        "versions of the training": _named(config.versions),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


@functools.cache
def _versions() -> dict[str, str]:
    found = {package: version_of(package) for package in PACKAGES}
    return {"Python": platform.python_version()} | {k: v for k, v in found.items() if v}
