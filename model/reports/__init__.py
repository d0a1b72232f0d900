"""Results for people: text on a terminal, pages for a browser."""

from typing import TYPE_CHECKING

from pipeline.common.lazy import lazily

if TYPE_CHECKING:
    from model.reports.run_report import write_report as write_report
    from model.reports.summary import headline as headline

_HOMES = {
    "headline": "model.reports.summary",
    "write_report": "model.reports.run_report",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
