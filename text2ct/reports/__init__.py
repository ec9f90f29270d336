"""Report pages that open from disk without a network, and the pictures on them."""

from text2ct.reports.benchmark import benchmark_headline, write_benchmark_report
from text2ct.reports.figures import slice_montage
from text2ct.reports.imbalance import imbalance_headline, write_imbalance_report
from text2ct.reports.methods import benchmark_limitations, benchmark_methods

__all__ = [
    "benchmark_headline",
    "benchmark_limitations",
    "benchmark_methods",
    "imbalance_headline",
    "slice_montage",
    "write_benchmark_report",
    "write_imbalance_report",
]
