"""The HTML report of one or several runs."""

from pixelcontrast.report.write import write_report

__all__ = ["write_report"]
