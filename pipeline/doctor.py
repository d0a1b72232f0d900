"""The command that lists what this machine has, what will be used, and what is missing."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import click
import cloup
import cv2
from packaging.requirements import Requirement

from pipeline import farneback
from pipeline.common.cli import Command
from pipeline.common.errors import SettingsError
from pipeline.common.files import readable_bytes
from pipeline.common.versions import version_of
from pipeline.faces.models import YUNET_FILE_NAME, YUNET_URL, model_folder, stored_model
from pipeline.workers.local import available_cores

DISTRIBUTION = "deepfake-motion"
EXTRAS = {"ray": "to extract on a cluster", "pandas": "for clips as a table"}
DECODERS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg")
ENCODERS = ("libx264",)
WORKER_BYTES = 400 * 10**6  # memory of an extraction process
OTHER_BYTES = 10**9  # memory for other programs
MIN_DISK_BYTES = 5 * 10**9  # less is noted as scarce
CLIP_BYTES = 25 * 10**6  # 300 frames at 224x224 with their flow maps


@dataclass(frozen=True)
class Finding:
    """The state of a part of the machine."""

    part: str
    state: str  # what is there, and what will be used
    hint: str = ""  # if something is missing
    needed: bool = False  # nothing works without it


@cloup.command(cls=Command)
def main() -> None:
    """List what this machine has and what will be used: libraries, cores, memory, GPU, files, disk.

    Anything missing comes with a hint. The exit code is 2 if nothing works without it.

    \b
    Example:
      python -m pipeline.doctor
    """
    broken = []
    for finding in examine():
        mark = "ok" if not finding.hint else "MISSING" if finding.needed else "note"
        click.echo(f"{mark:9}{finding.part:14}{finding.state}")
        if finding.hint:
            click.echo(f"{'':23}hint: {finding.hint}")
        if finding.hint and finding.needed:
            broken.append(finding.part)
    if broken:
        raise SettingsError(f"missing: {', '.join(broken)}", "the hints above say what to do")


def examine() -> Iterator[Finding]:
    """Examine the parts of this machine."""
    yield Finding("Python", f"{sys.version.split()[0]}, {sys.executable}")
    yield from _libraries()
    yield from _extras()
    cores = f"{available_cores()} of {os.cpu_count()}"
    yield Finding("cores", f"{cores}; extraction runs a process on each, or --jobs N")
    yield _memory()
    yield _gpu()
    yield _flow()
    yield _precision()
    yield _codecs()
    yield _weights()
    yield _faces()
    yield from _disks()


def _libraries() -> Iterator[Finding]:
    install = f"{sys.executable} -m pip install -e . in the folder of this program"
    try:
        stated = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("libraries", "this program runs, but is not installed", install)
        return
    fitting: list[str] = []
    missing: list[str] = []
    for needed in map(Requirement, stated):
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        version = version_of(needed.name)
        fits = bool(version) and needed.specifier.contains(version, prereleases=True)
        (fitting if fits else missing).append(f"{needed.name} {version or 'not there'}")
    yield Finding("libraries", ", ".join(fitting))
    if missing:
        yield Finding("libraries", ", ".join(missing), install, needed=True)


def _extras() -> Iterator[Finding]:
    for name, purpose in EXTRAS.items():
        if version := version_of(name):
            yield Finding(f"extra {name}", f"{version}, {purpose}")
        else:
            hint = f"{sys.executable} -m pip install {name}, if you want that"
            yield Finding(f"extra {name}", f"not there; {purpose}", hint)


def _memory() -> Finding:
    """Find the free memory, or what a container may use, whichever is less."""
    try:
        text = Path("/proc/meminfo").read_text()
        free = int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return Finding("memory", "unknown")
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such limit
            continue
    n_workers = max(1, int((free - OTHER_BYTES) / WORKER_BYTES))
    hint = f"give --jobs {n_workers}" if n_workers < available_cores() else ""
    return Finding("memory", f"{readable_bytes(free)} free", hint)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(n)}, "
            f"{readable_bytes(torch.cuda.get_device_properties(n).total_memory)}"
            for n in range(torch.cuda.device_count())
        ]
        return Finding("GPU", f"{'; '.join(names)}; CUDA {torch.version.cuda}")
    hint = ""
    if Path("/proc/driver/nvidia/version").is_file():
        built = torch.version.cuda
        hint = (
            f"there is an NVIDIA driver: update it for CUDA {built}"
            if built
            else "there is an NVIDIA driver: install PyTorch for CUDA, as pytorch.org says"
        )
    return Finding("GPU", "none that PyTorch sees; everything is computed on the CPU", hint)


def _flow() -> Finding:
    backend = farneback.resolve("auto")
    hint = ""
    if backend == "opencv":
        hint = f"the backend cpu is several times as fast, but fails: {farneback.cpu.why_not()}"
    return Finding("optical flow", f"backend {backend}, OpenCV {cv2.__version__}", hint)


def _precision() -> Finding:
    import torch

    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
        return Finding("embedding", f"in {'bfloat16' if fast else 'float16'} on the GPU")
    fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return Finding("embedding", f"in {'bfloat16' if fast else 'float32'}, PyTorch on the CPU")


def _codecs() -> Finding:
    missing = [name for name in DECODERS if not _has_codec(name, "r")]
    missing += [f"encoder {name}" for name in ENCODERS if not _has_codec(name, "w")]
    present = ", ".join(name for name in DECODERS if name not in missing)
    hint = f"PyAV was built without {', '.join(missing)}: pip install av has them" * bool(missing)
    return Finding("codecs", f"{present}; PyAV {av.__version__}", hint)


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _weights() -> Finding:
    import torch

    folder = Path(torch.hub.get_dir(), "checkpoints")
    files = sorted(path.name for path in folder.glob("*.pth"))
    if files:
        return Finding("weights", f"{', '.join(files)} in {folder}")
    return Finding(
        "weights",
        f"none in {folder}",
        "features.embed downloads them; without internet put them there, or give --weights PATH",
    )


def _faces() -> Finding:
    if stored_model():
        return Finding("face model", f"YuNet, {model_folder() / YUNET_FILE_NAME}")
    return Finding(
        "face model",
        "YuNet is not there; --crop face downloads it, or falls back to OpenCV's Haar cascade",
        f"without internet put {YUNET_URL} into {model_folder()}",
    )


def _disks() -> Iterator[Finding]:
    for part, folder in (("disk", Path.cwd()), ("temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        hint = ""
        if not os.access(folder, os.W_OK):
            hint = "it cannot be written: " + (
                "name a folder with -o" if part == "disk" else "set TMPDIR"
            )
        elif free < MIN_DISK_BYTES:
            hint = f"a clip of 300 frames takes about {readable_bytes(CLIP_BYTES)}"
            hint += "" if part == "disk" else "; set TMPDIR to a larger one"
        yield Finding(part, f"{readable_bytes(free)} free in {folder}", hint)


if __name__ == "__main__":
    main()
