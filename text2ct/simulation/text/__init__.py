"""Radiology reports in CT-RATE's manner: from a simulated scan, or from a label set alone."""

from text2ct.simulation.text.compose import compose, report
from text2ct.simulation.text.report import Report, write_report

__all__ = ["Report", "compose", "report", "write_report"]
