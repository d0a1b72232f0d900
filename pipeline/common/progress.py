"""Progress: a bar on a terminal, JSON lines with --log-json, otherwise nothing."""

import json
import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from pipeline.common.errors import Rejected

_log = logging.getLogger(__name__)


class Progress:
    """Counter of the items, frames and rejects of a stage."""

    def __init__(self, stage: str, total: int, unit: str = "video") -> None:
        self._stage, self._total = stage, total
        self._done = self._frames = self._rejected = 0
        self._begun = time.monotonic()
        hidden = True if _logs_json() else None  # None: shown on a terminal only
        self._bar = tqdm(total=total, desc=stage, unit=unit, disable=hidden)

    def __enter__(self) -> "Progress":
        self._log("begun", total=self._total)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        self._log("stopped" if kind else "ended", **self._state())

    def update(self, item: str, outcome: object = None, *, frames: int = 0) -> None:
        """Count an item, and a `Rejected` outcome among the rejects."""
        self._done += 1
        self._frames += frames
        facts = {"item": item, "frames": frames}
        if isinstance(outcome, Rejected):
            self._rejected += 1
            facts |= {"rejected": outcome.reason, "detail": outcome.detail}
        rate = {"frames/s": f"{self._per_second():.0f}"} if self._frames else {}
        self._bar.set_postfix(rate | {"rejected": self._rejected}, refresh=False)
        self._bar.update()
        self._log("item", **facts, **self._state())

    def _state(self) -> dict[str, Any]:
        left = self._total - self._done
        spent = time.monotonic() - self._begun
        return {
            "done": self._done,
            "total": self._total,
            "n_rejected": self._rejected,
            "frames_per_second": round(self._per_second(), 1),
            "seconds": round(spent, 3),
            "seconds_left": round(spent / self._done * left, 1) if self._done else None,
        }

    def _per_second(self) -> float:
        return self._frames / max(time.monotonic() - self._begun, 1e-9)

    def _log(self, event: str, **facts: Any) -> None:
        _log.info(event, extra={"facts": {"stage": self._stage} | facts})


class _JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        return json.dumps(facts | getattr(record, "facts", {}))


def log_json() -> None:
    """Write progress and warnings to stderr as JSON lines from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSONLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)


def _logs_json() -> bool:
    return any(isinstance(h.formatter, _JSONLines) for h in logging.getLogger().handlers)
