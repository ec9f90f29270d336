"""Charts as SVG that follow the page's light or dark theme, each with its data."""

from text2ct.reports.charts._base import Chart
from text2ct.reports.charts.arms import Gain, calibration_chart, gain_chart, seeds_chart
from text2ct.reports.charts.findings import acceptance_chart, forest_chart, mix_chart
from text2ct.reports.charts.guidance import guidance_chart
from text2ct.reports.charts.labels import cooccurrence_chart, prevalence_chart

__all__ = [
    "Chart",
    "Gain",
    "acceptance_chart",
    "calibration_chart",
    "cooccurrence_chart",
    "forest_chart",
    "gain_chart",
    "guidance_chart",
    "mix_chart",
    "prevalence_chart",
    "seeds_chart",
]
