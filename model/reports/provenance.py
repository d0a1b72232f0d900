"""Provenance of a verdict: what is needed to compute the same of a video again."""

import contextlib
import functools
import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from model.prediction.predict_videos import ExaminedVideo
from model.reports.evidence_video import ClipEvidence
from model.run.run import Run, digest_of
from pipeline.common.files import readable_bytes, sha256_of
from pipeline.common.versions import version_of
from pipeline.settings import Settings

PACKAGES = ("deepfake-motion", "av", "numpy", "opencv-contrib-python", "torch", "torchvision")


def provenance_of(
    run: Run, examined: ExaminedVideo, clips: Sequence[ClipEvidence]
) -> dict[str, str]:
    """Return facts about the file, its clips and the run."""
    return _file_facts(examined) | (_clip_facts(run, clips) if clips else {}) | _run_facts(run)


def clip_spans(clips: Sequence[ClipEvidence]) -> list[tuple[float, float]]:
    """Return the first and last second of each clip."""
    return [(float(t[0]), float(t[-1])) for t in (c.arrays["timestamps"] for c in clips)]


def confusion_in_test(run: Run) -> tuple[int, int, int, int] | None:
    """Return the confusion matrix of the run's own test, flat; None if it was not evaluated."""
    try:
        metrics = json.loads((run.folder / "metrics.json").read_text())
        if metrics["cache_sha256"] != run.config.cache_sha256:
            return None
        true_real, false_fake, false_real, true_fake = map(int, metrics["test"]["confusion"])
        return true_real, false_fake, false_real, true_fake
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_facts(examined: ExaminedVideo) -> dict[str, str]:
    if metadata := examined.metadata:
        return {
            "sha256 of the file": metadata.sha256,
            "size of the file": readable_bytes(metadata.n_bytes),
            "duration": f"{metadata.duration:.2f} s",
            "picture": f"{metadata.width}x{metadata.height} pixels, {metadata.fps:.4g} frames/s",
        }
    with contextlib.suppress(ValueError, OSError):
        path = Path(examined.prediction.path)
        if path.is_file():
            return {
                "sha256 of the file": sha256_of(path),
                "size of the file": readable_bytes(path.stat().st_size),
            }
    return {}


def _clip_facts(run: Run, clips: Sequence[ClipEvidence]) -> dict[str, str]:
    settings = Settings.from_json(run.config.extraction)
    spans = [f"{run.config.frames} from {a:.2f} to {b:.2f} s" for a, b in clip_spans(clips)]
    boxes = sorted({tuple(clip.arrays["crop"].tolist()) for clip in clips})
    crops = "; ".join(f"{w}x{h} at {x}, {y}" for x, y, w, h in boxes)
    about = f" (about a face, by {settings.faces.detector})" if settings.faces else ""
    stabilised = ", without the camera's motion" if settings.stabilise else ""
    return {
        "frames looked at": "; ".join(spans),
        "crop": f"{crops}{about}, at {settings.width}x{settings.height} pixels",
        "flow": f"Farneback, backend {settings.flow_backend}{stabilised}",
    }


def _run_facts(run: Run) -> dict[str, str]:
    config, embedding = run.config, run.config.embedding
    streams = ", ".join(config.streams)
    weights = f"weights {embedding['weights']}, {embedding['precision']}"
    return {
        "run": run.folder.resolve().name,
        "sha256 of model and settings": digest_of(run),
        "detector": f"{config.n_heads} {config.training.head} heads over {streams}",
        "backbone": f"{embedding['backbone']}, {weights}",
        "sha256 of its weights": embedding["weights_sha256"],
        "trained on": str(config.extraction["corpus"]),
        **({"fakes": config.fakes_trained_on} if config.fakes_trained_on else {}),
        "sha256 of the training cache": config.cache_sha256,
        "threshold": f"{config.threshold:.6f}, {config.threshold_rule}",
        "versions": _join(_versions()),
        "versions of the training": _join(config.versions),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _join(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


@functools.cache
def _versions() -> dict[str, str]:
    versions = {package: version_of(package) for package in PACKAGES}
    return {"Python": platform.python_version()} | {k: v for k, v in versions.items() if v}
