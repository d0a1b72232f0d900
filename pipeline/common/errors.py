"""Errors for users, with exit codes and hints."""


class PipelineError(Exception):
    """An error that a user can act on: a sentence with path and value, and a hint."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SettingsError(PipelineError):
    """Arguments or settings that cannot work."""


class NothingUsable(PipelineError):
    """No usable video, clip or embedding is left."""

    exit_code = 1


class TooManyRejects(PipelineError):
    """The command has finished, but rejected more than allowed."""

    exit_code = 3


class IntegrityError(PipelineError):
    """A cache is damaged, or a split leaks."""

    exit_code = 4


class Rejected(Exception):
    """A file cannot be used: a reason in fixed words, and what is wrong with this file."""

    # These may lie in the machine: the next run tries such a file again.
    TRANSIENT_REASONS = ("crashed the decoder", "out of memory", "timed out", "unreadable")

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both, for pickling
        self.reason = reason
        self.detail = detail

    @property
    def temporary(self) -> bool:
        """Whether another try may succeed."""
        return self.reason in self.TRANSIENT_REASONS
