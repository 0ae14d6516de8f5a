"""The report: one self-contained HTML page for people, and its JSON twin for programs."""

from leap.report.model import Report
from leap.report.page import write_report

__all__ = ["Report", "write_report"]
