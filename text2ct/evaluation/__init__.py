"""Statistics of classifiers and of generators.

Of a classifier: is it good, and is it better than another? Of a generator: do its volumes agree with their texts
(``retrieval``, ``zero_shot``, ``probe``, here), and are they faithful, diverse and no copies (``fidelity``,
``similarity``, ``memorisation``, and the backbone ``slice_network``: imported by name, since they load torch).
"""

from text2ct.evaluation.classification import choose_thresholds, crg, score
from text2ct.evaluation.comparison import compare
from text2ct.evaluation.delong import DeLong, auc_variance, delong_test
from text2ct.evaluation.estimates import holm
from text2ct.evaluation.predictions import read_labels, read_pair, read_predictions
from text2ct.evaluation.probe import Probe, linear_probe
from text2ct.evaluation.retrieval import Retrieval, clip_score, report_to_volume_recall, volume_to_volume_map
from text2ct.evaluation.zero_shot import ZeroShot, zero_shot, zero_shot_scores

__all__ = [
    "DeLong",
    "Probe",
    "Retrieval",
    "ZeroShot",
    "auc_variance",
    "choose_thresholds",
    "clip_score",
    "compare",
    "crg",
    "delong_test",
    "holm",
    "linear_probe",
    "read_labels",
    "read_pair",
    "read_predictions",
    "report_to_volume_recall",
    "score",
    "volume_to_volume_map",
    "zero_shot",
    "zero_shot_scores",
]
