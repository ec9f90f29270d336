"""What the arms of a benchmark that need volumes or weights of their own are made of.

``reconstructed``: the decoder's look alone. ``oracle``: what a perfect generator would bring.
``pretrained_classifier``: what the pack's patients are worth without any image being generated. ``own_generator``: a
generator that has seen the arm's own training patients and nobody else.
"""

from text2ct.evaluation.arm_volumes._oracle import ORACLE_DATASET, oracle
from text2ct.evaluation.arm_volumes._own_generator import OwnBudget, own_generator
from text2ct.evaluation.arm_volumes._pretrained import pretrained_classifier
from text2ct.evaluation.arm_volumes._reconstructed import reconstructed

__all__ = ["ORACLE_DATASET", "OwnBudget", "oracle", "own_generator", "pretrained_classifier", "reconstructed"]
