"""Radiology reports in CT-RATE's manner: from a simulated scan, or from a label set alone."""

from text2ct.simulation.text.compose import compose, compose_mention, report
from text2ct.simulation.text.report import Mention, Report, write_report

__all__ = ["Mention", "Report", "compose", "compose_mention", "report", "write_report"]
