"""The command that says what this machine has, what will be used of it, and what is missing."""

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
import torch
from packaging.requirements import Requirement

from pipeline import farneback
from pipeline.common.cli import Command
from pipeline.common.errors import SettingsError
from pipeline.common.files import readable_bytes
from pipeline.common.versions import version_of
from pipeline.faces.models import YUNET_FILE_NAME, YUNET_URL, model_folder, stored_model
from pipeline.workers.local import available_cores

DISTRIBUTION = "deepfake-motion"
EXTRAS = {
    "ray": "to extract on a cluster",
    "pandas": "for clips as a table",
}
DECODERS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg")
ENCODERS = ("libx264",)
PROCESS = 400 * 10**6  # bytes of memory that a process of extraction takes
BESIDE = 10**9  # bytes for whatever else runs
SCARCE = 5 * 10**9  # bytes of disk
PER_CLIP = 25 * 10**6  # bytes of 300 frames at 224x224 with their flow maps


@dataclass(frozen=True)
class Finding:
    """What is known about one part of a machine.

    Attributes:
        part: its name.
        found: what is there, and what will be used.
        hint: what to do about what is missing; nothing if all is well.
        needed: nothing works without it.
    """

    part: str
    found: str
    hint: str = ""
    needed: bool = False


@cloup.command(cls=Command)
def main() -> None:
    """Say what this machine has and what will be used: libraries, cores, memory, GPU, files, disk.

    What is missing comes with a hint. The exit code is 2 if nothing can work without it.

    \b
    Example:
      python -m pipeline.doctor
    """
    broken = []
    for finding in examine():
        mark = "ok" if not finding.hint else "MISSING" if finding.needed else "note"
        click.echo(f"{mark:9}{finding.part:14}{finding.found}")
        if finding.hint:
            click.echo(f"{'':23}hint: {finding.hint}")
        if finding.hint and finding.needed:
            broken.append(finding.part)
    if broken:
        raise SettingsError(f"missing: {', '.join(broken)}", "the hints above say what to do")


def examine() -> Iterator[Finding]:
    """Look at everything, one after the other."""
    yield _python()
    yield from _libraries()
    yield from _extras()
    yield _cores()
    yield _memory()
    yield _gpu()
    yield _flow()
    yield _precision()
    yield _codecs()
    yield _weights()
    yield _faces()
    yield from _disks()


def _python() -> Finding:
    return Finding("Python", f"{sys.version.split()[0]}, {sys.executable}")


def _libraries() -> Iterator[Finding]:
    install = f"{sys.executable} -m pip install -e . in the folder of this program"
    try:
        stated = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("libraries", "this program runs, but is not installed", install)
        return
    requirements = [Requirement(text) for text in stated]
    right: list[str] = []
    wrong: list[str] = []
    for one in (r for r in requirements if not r.marker or r.marker.evaluate({"extra": ""})):
        version = version_of(one.name)
        fits = bool(version) and one.specifier.contains(version, prereleases=True)
        (right if fits else wrong).append(f"{one.name} {version or 'not there'}")
    yield Finding("libraries", ", ".join(right))
    if wrong:
        yield Finding("libraries", ", ".join(wrong), install, needed=True)


def _extras() -> Iterator[Finding]:
    for name, purpose in EXTRAS.items():
        if version := version_of(name):
            yield Finding(f"extra {name}", f"{version}, {purpose}")
        else:
            hint = f"{sys.executable} -m pip install {name}, if you want that"
            yield Finding(f"extra {name}", f"not there; {purpose}", hint)


def _cores() -> Finding:
    usable, all_of_them = available_cores(), os.cpu_count() or 1
    found = f"{usable} of {all_of_them}; so many processes extract, unless --jobs says otherwise"
    return Finding("cores", found)


def _memory() -> Finding:
    """What is free, or what a container may use, whichever is less."""
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
    fitting = max(1, int((free - BESIDE) / PROCESS))
    hint = f"give --jobs {fitting}" if fitting < available_cores() else ""
    return Finding("memory", f"{readable_bytes(free)} free", hint)


def _gpu() -> Finding:
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
        hint = f"kernels of our own are several times as fast: {farneback.cpu.why_not()}"
    return Finding("optical flow", f"backend {backend}, OpenCV {cv2.__version__}", hint)


def _precision() -> Finding:
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
        return Finding("embedding", f"in {'bfloat16' if fast else 'float16'} on the GPU")
    fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return Finding("embedding", f"in {'bfloat16' if fast else 'float32'}, PyTorch on the CPU")


def _codecs() -> Finding:
    missing = [name for name in DECODERS if not _codec(name, "r")]
    missing += [f"encoder {name}" for name in ENCODERS if not _codec(name, "w")]
    there = ", ".join(name for name in DECODERS if name not in missing)
    hint = f"PyAV was built without {', '.join(missing)}: pip install av has them" * bool(missing)
    return Finding("codecs", f"{there}; PyAV {av.__version__}", hint)


def _codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _weights() -> Finding:
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
        found = f"{readable_bytes(free)} free in {folder}"
        hint = ""
        if not os.access(folder, os.W_OK):
            hint = "it cannot be written: " + (
                "name a folder with -o" if part == "disk" else "set TMPDIR"
            )
        elif free < SCARCE:
            hint = f"a clip of 300 frames takes about {readable_bytes(PER_CLIP)}"
            hint += "" if part == "disk" else "; set TMPDIR to a larger one"
        yield Finding(part, found, hint)


if __name__ == "__main__":
    main()
