"""Reports: text for a terminal, pages for a browser."""

from model.reports.run_report import write_report
from model.reports.summary import headline

__all__ = ["headline", "write_report"]
