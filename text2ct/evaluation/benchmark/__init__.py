"""Does it help? Training sets against each other at equal steps, judged on one real test split.

``settings`` says what is asked and what is declared before the first training, ``arms`` lists the training sets and
``building`` puts them together, ``data`` holds the tables and what is refused of them, ``runner`` trains, ``outcome``
and ``calibration`` judge, and ``run`` puts them in order.
"""

from text2ct.evaluation.benchmark.arms import ARMS, uses
from text2ct.evaluation.benchmark.data import pack_fidelity
from text2ct.evaluation.benchmark.run import run_benchmark
from text2ct.evaluation.benchmark.settings import BenchmarkSettings

__all__ = ["ARMS", "BenchmarkSettings", "pack_fidelity", "run_benchmark", "uses"]
