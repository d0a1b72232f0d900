"""What can go wrong: every error a user meets, with its exit code and a way out."""


class PipelineError(Exception):
    """An error whose message is for the user: what, where, the value.

    Args:
        message: one sentence with the path and the value.
        hint: what to do about it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SettingsError(PipelineError):
    """Arguments or settings that cannot work (exit code 2)."""


class NothingUsable(PipelineError):
    """No video, clip or embedding is left to work on (exit code 1)."""

    exit_code = 1


class TooManyRejects(PipelineError):
    """The work is done, but more was rejected than allowed (exit code 3)."""

    exit_code = 3


class IntegrityError(PipelineError):
    """A cache is damaged, or a split leaks (exit code 4)."""

    exit_code = 4


class Rejected(Exception):
    """One file cannot be used.

    Args:
        reason: a few fixed words, the same for every file with this fault.
        detail: what was seen in this file.
    """

    # Faults that may be the machine's: the next run tries such a file again.
    PASSING = ("crashed the decoder", "out of memory", "timed out", "unreadable")

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both, so that it survives pickling
        self.reason = reason
        self.detail = detail

    @property
    def temporary(self) -> bool:
        """Whether another try may end otherwise."""
        return self.reason in self.PASSING
