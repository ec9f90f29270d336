"""A synthetic set beside a real one: fidelity, alignment, factual correctness, privacy and diversity in one call."""

from text2ct.evaluation.generator.estimate import estimate
from text2ct.evaluation.generator.evaluate import METRICS, Measures, Settings, evaluate

__all__ = ["METRICS", "Measures", "Settings", "estimate", "evaluate"]
