"""What decides the content of a cache, apart from the videos themselves."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pipeline import farneback
from pipeline.cache import Compression
from pipeline.common.errors import SettingsError
from pipeline.faces import FaceCrop
from pipeline.splits.protocols import Splitting
from pipeline.video.resize import Box, Geometry


@dataclass(frozen=True)
class Settings:
    """Settings of extraction; a cache keeps them, and a new video is treated by them."""

    width: int = 224
    height: int = 224
    crop: Box | FaceCrop | None = None
    fps: float | None = None  # None: each video at its own rate
    stride: int = 1
    frames: int | None = None  # None: as many as the shortest sound video has
    min_frames: int = 16
    clips: int = 1
    flow_backend: farneback.Backend = "opencv"
    stabilise: bool = False  # take the camera's motion out of the flow
    keep_frames: bool = True
    compression: Compression = "gzip"
    shard_size: int | None = None  # videos; None: by how many there are
    splitting: Splitting = dataclasses.field(default_factory=Splitting)
    seed: int = 0  # of the order of clips

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 32:
            raise SettingsError(f"size {self.width}x{self.height}", "both sides need 32 or more")
        if self.frames is not None and self.frames < 2:
            raise SettingsError(f"{self.frames} frames", "flow needs at least 2")
        if self.shard_size is not None and self.shard_size < 1:
            raise SettingsError(f"{self.shard_size} videos in a shard", "give 1 or more")
        if isinstance(self.crop, tuple) and (min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise SettingsError(f"crop {self.crop}", "give x,y,width,height in pixels")

    def videos_per_shard(self, n_videos: int) -> int:
        """One up to 2,000 videos; then so many that there are about 1,000 shards, 64 at most."""
        return self.shard_size or max(1, min(64, n_videos // 1000))

    @property
    def geometry(self) -> Geometry:
        """Crop, if it is the same for all videos, and size."""
        return Geometry(self.width, self.height, None if self.faces else self.crop)  # type: ignore[arg-type]

    @property
    def faces(self) -> FaceCrop | None:
        """How a face is found that each clip is cropped about, if one is."""
        return self.crop if isinstance(self.crop, FaceCrop) else None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """Settings as a cache stores them."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        crop = known["crop"]
        if crop is not None:
            crop = FaceCrop(**crop) if isinstance(crop, dict) else tuple(crop)
        return cls(**known | {"crop": crop, "splitting": Splitting(**known["splitting"])})
