"""Settings of a corpus of own fakes: they and the videos decide its bytes."""

from dataclasses import dataclass

from pipeline.common.errors import SettingsError
from pipeline.own_fakes.kinds import DEFAULT_KINDS, KINDS


@dataclass(frozen=True)
class FakeSettings:
    """What is made of each real video."""

    per_video: int = 2  # fakes
    kinds: tuple[str, ...] = DEFAULT_KINDS
    strength: float = 1.0  # of all kinds; 0 gives back the original
    seconds: float = 10.0  # from the start of each video, at most
    longest_side: int = 720  # pixels; larger videos are shrunk
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(KINDS):
            raise SettingsError(f"kinds {sorted(unknown)}", f"kinds are {', '.join(KINDS)}")
        if not self.kinds:
            raise SettingsError("no kinds", f"give some of {', '.join(KINDS)}")

    @property
    def needs_faces(self) -> bool:
        """Whether a face has to be found in each video."""
        return set(self.kinds) != {"whole"}
