"""Settings of an extraction: they and the videos decide the content of a cache."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pipeline import farneback
from pipeline.cache import Compression
from pipeline.common.errors import Rejected, SettingsError
from pipeline.faces import FaceCrop
from pipeline.splits.protocols import Splitting
from pipeline.video.resize import Box, Geometry

RATE_TOLERANCE = 0.99  # of `fps`: 29.97 frames/s passes for 30, 23.976 for 24


@dataclass(frozen=True)
class Settings:
    """Settings of an extraction, stored in its cache."""

    width: int = 224
    height: int = 224
    crop: Box | FaceCrop | None = None
    fps: float | None = None  # None: each video's own rate
    stride: int = 1
    frames: int | None = None  # None: as many as the shortest sound video has
    min_frames: int = 16
    clips: int = 1  # per video, at most
    flow_backend: farneback.Backend = "opencv"
    stabilise: bool = False  # subtract the camera's motion from the flow
    keep_frames: bool = True
    compression: Compression = "gzip"
    shard_size: int | None = None  # videos; None: depends on their number
    splitting: Splitting = dataclasses.field(default_factory=Splitting)
    seed: int = 0  # of the order of clips
    own_fakes: dict[str, Any] | None = None  # settings and seed of fakes made for it, kept nowhere

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 32:
            raise SettingsError(f"size {self.width}x{self.height}", "both sides need 32 or more")
        if self.frames is not None and self.frames < 2:
            raise SettingsError(f"{self.frames} frames", "flow needs at least 2")
        if self.shard_size is not None and self.shard_size < 1:
            raise SettingsError(f"{self.shard_size} videos in a shard", "give 1 or more")
        if isinstance(self.crop, tuple) and (min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise SettingsError(f"crop {self.crop}", "give x,y,width,height in pixels")

    def rate(self, own_rate: float) -> float:
        """Return the sampling rate of a video in frames/s.

        Raises:
            Rejected: the video is slower than ``fps``.
        """
        if self.fps is not None and own_rate < self.fps * RATE_TOLERANCE:
            raise Rejected(
                "frame rate too low", f"{own_rate:.2f} frames/s, {self.fps:g} are asked for"
            )
        return (self.fps or own_rate) / self.stride

    def videos_per_shard(self, n_videos: int) -> int:
        """Return the shard size: by default 1 up to 2,000 videos, then about 1,000 shards."""
        return self.shard_size or max(1, min(64, n_videos // 1000))

    @property
    def geometry(self) -> Geometry:
        """Size, and the crop unless it is about faces."""
        return Geometry(self.width, self.height, None if self.faces else self.crop)  # type: ignore[arg-type]

    @property
    def faces(self) -> FaceCrop | None:
        """The crop, if it is about faces."""
        return self.crop if isinstance(self.crop, FaceCrop) else None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """Return the settings that a cache stores; ignore unknown keys."""
        values = {"own_fakes": None} | values  # caches made before do not have it
        fields = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        crop = fields["crop"]
        if crop is not None:
            crop = FaceCrop(**crop) if isinstance(crop, dict) else tuple(crop)
        return cls(**fields | {"crop": crop, "splitting": Splitting(**fields["splitting"])})
