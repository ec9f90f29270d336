"""Classification scores with statistics: is a classifier good, and is it better than another?"""

from text2ct.evaluation.classification import choose_thresholds, crg, score
from text2ct.evaluation.comparison import compare, holm
from text2ct.evaluation.delong import DeLong, auc_variance, delong_test
from text2ct.evaluation.predictions import read_labels, read_pair, read_predictions

__all__ = [
    "DeLong",
    "auc_variance",
    "choose_thresholds",
    "compare",
    "crg",
    "delong_test",
    "holm",
    "read_labels",
    "read_pair",
    "read_predictions",
    "score",
]
